package registry

import (
	"context"
	"encoding/json"

	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// encodeBody returns the JSON of something that is never stored: a Scale, a Status, a TokenRequest, a view.
func encodeBody(obj runtime.Object) ([]byte, error) {
	return json.Marshal(obj)
}

// asKube narrows a body to an object with metadata.
func asKube(body runtime.Object) (kube.Object, bool) {
	o, ok := body.(kube.Object)
	return o, ok
}

// view turns stored bytes into JSON of the target's kind: without change when that shows its objects as they are stored.
func (r *Registry) view(ctx context.Context, k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) ([]byte, error) {
	out, err := r.views(ctx, k, []sqlstore.Entry{{Key: key, Rev: rev, Value: raw}})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// views does what view does, for many, which it converts in one call.
func (r *Registry) views(ctx context.Context, k *resource.Kind, entries []sqlstore.Entry) ([]json.RawMessage, error) {
	out := make([]json.RawMessage, len(entries))
	if k.AsStored() {
		for i, e := range entries {
			out[i] = e.Value
		}
		return out, nil
	}
	shown, err := r.shown(ctx, k, entries)
	if err != nil {
		return nil, err
	}
	for i, obj := range shown {
		if out[i], err = encodeBody(obj); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// shown returns stored objects as k shows them.
func (r *Registry) shown(ctx context.Context, k *resource.Kind, entries []sqlstore.Entry) ([]kube.Object, error) {
	objs := make([]kube.Object, len(entries))
	for i, e := range entries {
		var err error
		if objs[i], err = r.objects.Typed(k.Stored(), e.Key, e.Rev, e.Value); err != nil {
			return nil, err
		}
	}
	return k.FromStored(ctx, objs...)
}

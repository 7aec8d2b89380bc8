package registry

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// encodeBody makes JSON of something that is never stored: a Scale, a Status, a TokenRequest, a view.
func encodeBody(obj runtime.Object) ([]byte, error) {
	return json.Marshal(obj)
}

// asKube narrows a body to an object with metadata.
func asKube(body runtime.Object) (kube.Object, bool) {
	o, ok := body.(kube.Object)
	return o, ok
}

// toStored turns a body of the target's kind into an object of the stored kind, which the caller owns.
func toStored(k *resource.Kind, body kube.Object) (kube.Object, error) {
	if k.StoredAs == nil {
		return body, nil
	}
	return k.ToStored(body)
}

// view turns stored bytes into JSON of the target's kind: without change unless the kind is a view.
func (r *Registry) view(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) ([]byte, error) {
	if k.StoredAs == nil {
		return raw, nil
	}
	obj, err := r.objects.Typed(k.StoredAs, key, rev, raw)
	if err != nil {
		return nil, err
	}
	v, err := k.FromStored(obj.DeepCopyObject().(kube.Object))
	if err != nil {
		return nil, err
	}
	v.GetObjectKind().SetGroupVersionKind(k.GVK)
	return encodeBody(v)
}

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// An object is stored as JSON with its apiVersion, kind and resourceVersion in place, so that reading it is a copy. The
// resourceVersion is only known at commit, so a writer encodes the object without its digits and tells the store where they
// belong.

var rvField = []byte(`"resourceVersion":"`)

// encoded is an object on its way to the store: JSON is value[:at] + digits + value[at:].
type encoded struct {
	value []byte
	at    int
}

// encode makes the stored form of obj, whose TypeMeta it sets.
func encode(k *resource.Kind, obj kube.Object) (encoded, error) {
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	b, at, err := k.Codec.Encode(obj)
	if err != nil {
		return encoded{}, fmt.Errorf("%s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	return encoded{value: b, at: at}, nil
}

// with returns the JSON with revision rev in place, leaving e as it is.
func (e encoded) with(rev sqlstore.Revision) []byte {
	digits := strconv.AppendInt(nil, int64(rev), 10)
	b := make([]byte, 0, len(e.value)+len(digits))
	b = append(b, e.value[:e.at]...)
	b = append(b, digits...)
	return append(b, e.value[e.at:]...)
}

// same tells whether stored is e at some revision: whether writing e would change nothing.
func (e encoded) same(stored []byte, rev sqlstore.Revision) bool {
	digits := strconv.FormatInt(int64(rev), 10)
	if len(stored) != len(e.value)+len(digits) {
		return false
	}
	return bytes.Equal(stored[:e.at], e.value[:e.at]) && string(stored[e.at:e.at+len(digits)]) == digits &&
		bytes.Equal(stored[e.at+len(digits):], e.value[e.at:])
}

// decode makes the typed form of stored bytes.
func decode(k *resource.Kind, raw []byte) (kube.Object, error) { return k.Codec.Decode(raw) }

// storedRevision reads the resourceVersion out of stored bytes; 0 when there is none. The first such field is the object's
// own: a Codec writes nothing before it that could look like it.
func storedRevision(raw []byte) (rev sqlstore.Revision, start, end int) {
	i := bytes.Index(raw, rvField)
	if i < 0 {
		return 0, 0, 0
	}
	start = i + len(rvField)
	end = start
	for end < len(raw) && raw[end] >= '0' && raw[end] <= '9' {
		rev = rev*10 + sqlstore.Revision(raw[end]-'0')
		end++
	}
	return rev, start, end
}

// withRevision returns raw with another resourceVersion: how a watch tells that an object left a selection.
func withRevision(raw []byte, rev sqlstore.Revision) []byte {
	_, start, end := storedRevision(raw)
	if start == 0 {
		return raw
	}
	return encoded{value: append(append([]byte(nil), raw[:start]...), raw[end:]...), at: start}.with(rev)
}

// encodeBody makes JSON of something that is never stored: a Scale, a Status, a TokenRequest, a view.
func encodeBody(obj runtime.Object) ([]byte, error) {
	return json.Marshal(obj)
}

func parseRevision(s string) (sqlstore.Revision, error) {
	if s == "" || s == "0" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, err
	}
	return sqlstore.Revision(n), nil
}

func formatRevision(rev sqlstore.Revision) string { return strconv.FormatInt(int64(rev), 10) }

// asKube narrows a body to an object with metadata.
func asKube(body runtime.Object) (kube.Object, bool) {
	o, ok := body.(kube.Object)
	return o, ok
}

// view turns stored bytes into JSON of the target's kind: without change unless the kind is a view, or the object told.
func (r *Registry) view(ctx context.Context, k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) ([]byte, error) {
	if from := r.toldFrom(k, key); from != nil {
		obj, err := r.tell(k, from, key, rev, raw)
		if err != nil {
			return nil, err
		}
		return encodeBody(obj)
	}
	if k.StoredAs == nil {
		return raw, nil
	}
	obj, err := r.typed(k.StoredAs, key, rev, raw)
	if err != nil {
		return nil, err
	}
	shown, err := k.FromStored(ctx, obj)
	if err != nil {
		return nil, err
	}
	return encodeBody(shown[0])
}

package objects

import (
	"bytes"
	"fmt"
	"strconv"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// An object is stored as JSON with its apiVersion, kind and resourceVersion in place, so that reading it is a copy. The
// resourceVersion is only known at commit, so a writer encodes the object without its digits and passes the store the
// offset where they belong.

var rvField = []byte(`"resourceVersion":"`)

// Encoded is an object on its way to the store: its JSON is Value[:At] + digits of the revision + Value[At:].
type Encoded struct {
	Value []byte
	At    int // offset in Value
}

// Encode returns the stored form of obj, whose TypeMeta it sets.
func Encode(k *resource.Kind, obj kube.Object) (Encoded, error) {
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	b, at, err := k.Codec.Encode(obj)
	if err != nil {
		return Encoded{}, fmt.Errorf("%s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	return Encoded{Value: b, At: at}, nil
}

// With returns the JSON with revision rev in place. It does not change e.
func (e Encoded) With(rev sqlstore.Revision) []byte {
	digits := strconv.AppendInt(nil, int64(rev), 10)
	b := make([]byte, 0, len(e.Value)+len(digits))
	b = append(b, e.Value[:e.At]...)
	b = append(b, digits...)
	return append(b, e.Value[e.At:]...)
}

// Same reports whether stored is e at revision rev: whether writing e would change nothing.
func (e Encoded) Same(stored []byte, rev sqlstore.Revision) bool {
	digits := strconv.FormatInt(int64(rev), 10)
	if len(stored) != len(e.Value)+len(digits) {
		return false
	}
	return bytes.Equal(stored[:e.At], e.Value[:e.At]) && string(stored[e.At:e.At+len(digits)]) == digits &&
		bytes.Equal(stored[e.At+len(digits):], e.Value[e.At:])
}

// Decode returns the typed form of stored bytes.
func Decode(k *resource.Kind, raw []byte) (kube.Object, error) { return k.Codec.Decode(raw) }

// StoredRevision returns the resourceVersion in stored bytes; 0 when there is none.
func StoredRevision(raw []byte) sqlstore.Revision {
	rev, _, _ := findRevision(raw)
	return rev
}

// findRevision also returns where the digits are, start 0 when there are none. The first such field is the object's own: a
// Codec writes nothing before it that could look like it.
func findRevision(raw []byte) (rev sqlstore.Revision, start, end int) {
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

// WithRevision returns raw with another resourceVersion: how a watch shows that an object left a selection.
func WithRevision(raw []byte, rev sqlstore.Revision) []byte {
	_, start, end := findRevision(raw)
	if start == 0 {
		return raw
	}
	return Encoded{Value: append(append([]byte(nil), raw[:start]...), raw[end:]...), At: start}.With(rev)
}

// ParseRevision reads a resourceVersion as a client sends it: "" and "0" are 0, which means any.
func ParseRevision(s string) (sqlstore.Revision, error) {
	if s == "" || s == "0" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, err
	}
	return sqlstore.Revision(n), nil
}

// FormatRevision writes a revision as a resourceVersion.
func FormatRevision(rev sqlstore.Revision) string { return strconv.FormatInt(int64(rev), 10) }

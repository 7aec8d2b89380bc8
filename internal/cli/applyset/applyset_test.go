package applyset

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestID holds the label to what kubectl makes of the same parent, so that both find the same members.
func TestID(t *testing.T) {
	for _, c := range []struct{ name, namespace, kind, group, want string }{
		{"my-set", "test", "Secret", "", "applyset-0eFHV8ySqp7XoShsGvyWFQD3s96yqwHmzc4e0HR1dsY-v1"},
	} {
		s := &Set{name: c.name, namespace: c.namespace, parent: &meta.RESTMapping{GroupVersionKind: schema.GroupVersionKind{Group: c.group, Version: "v1", Kind: c.kind}}}
		if got := s.ID(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

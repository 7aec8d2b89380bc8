package nearest

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestHint(t *testing.T) {
	commands := []string{"get", "edit", "exec", "delete", "describe", "drain", "up", "token"}
	names := []string{"web", "web-6d4cf56db6-x2x7k", "web-6d4cf56db6-z9k2p", "database", "cache"}
	for _, c := range []struct {
		typed string
		names []string
		want  string
	}{
		{"gte", commands, `; did you mean "get"?`},
		{"gett", commands, `; did you mean "get"?`},
		{"desc", commands, `; did you mean "describe"?`},
		{"de", commands, `; did you mean "delete" or "describe"?`},
		{"Delete", commands, `; did you mean "delete"?`},
		{"frobnicate", commands, ""},
		{"gt", commands, `; did you mean "get"?`},
		{"cp", commands, ""}, // up begins otherwise
		{"d", commands, ""},
		{"", commands, ""},
		{"wbe", names, `; did you mean "web"?`},
		{"databsae", names, `; did you mean "database"?`},
		{"web-6d4c", names, `; did you mean "web-6d4cf56db6-x2x7k" or "web-6d4cf56db6-z9k2p"?`},
		{"web", nil, ""},
	} {
		if got := Hint(c.typed, c.names); got != c.want {
			t.Errorf("%q: %q, want %q", c.typed, got, c.want)
		}
	}
}

func TestKinds(t *testing.T) {
	lists := []*metav1.APIResourceList{
		{APIResources: []metav1.APIResource{
			{Name: "pods", SingularName: "pod", ShortNames: []string{"po"}}, {Name: "pods/log"}, {Name: "events", SingularName: "event"},
			{Name: "nodes", SingularName: "node"}, {Name: "persistentvolumeclaims", SingularName: "persistentvolumeclaim", ShortNames: []string{"pvc"}},
		}},
		{APIResources: []metav1.APIResource{{Name: "events", SingularName: "event"}, {Name: "deployments", SingularName: "deployment"}}},
	}
	for typed, want := range map[string]string{
		"podz": `; did you mean "pods"?`, "pdo": `; did you mean "pods"?`, "evnets": `; did you mean "events"?`, "pvcs": `; did you mean "persistentvolumeclaims"?`,
		"deploymnet.apps": `; did you mean "deployments"?`, "unicorns": "",
	} {
		if got := Kinds(typed, lists); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"same", "same", 0}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"wbe", "web", 1}, {"für", "fur", 1}, {"abcd", "badc", 2},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

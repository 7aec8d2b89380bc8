package impersonate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
)

// rights are what a user may do: "VERB PLURAL[/SUBRESOURCE][.GROUP] NAME", where NAME may be *.
type rights []string

func (r rights) Authorize(_ context.Context, _ auth.User, a auth.Attributes) (bool, string, error) {
	what := a.Plural
	if a.Subresource != "" {
		what += "/" + a.Subresource
	}
	if a.APIGroup != "" {
		what += "." + a.APIGroup
	}
	for _, have := range r {
		if have == fmt.Sprintf("%s %s %s", a.Verb, what, a.Name) || have == fmt.Sprintf("%s %s *", a.Verb, what) {
			return true, "", nil
		}
		if have == "broken" {
			return true, "", errors.New("the policy cannot be read")
		}
	}
	return false, "", nil
}

// TestUser shows what becomes of the headers, by which rights, and how it is refused.
func TestUser(t *testing.T) {
	const node = "authentication.kubernetes.io/node-name"
	agent := auth.User{Name: "system:serviceaccount:shop:agent", Extra: map[string][]string{node: {"pi-1"}}}
	jane := auth.User{Name: "jane"}
	get := auth.Attributes{Resource: true, Verb: "get", Plural: "pods", Namespace: "shop", Name: "a"}
	for _, test := range []struct {
		name    string
		by      auth.User
		headers string // "Header: value; Header: value"
		rights  rights
		want    string // NAME UID [GROUPS] EXTRA, or the error
	}{
		{"nobody is asked for", jane, "", nil, "jane  [] map[]"},
		{"no right", jane, "Impersonate-User: john", nil,
			`403 pods "a" is forbidden: User "jane" cannot impersonate-on:user-info:get resource "pods" in API group "" in the namespace "shop"`},
		{"legacy", jane, "Impersonate-User: john", rights{"impersonate users john"}, "john  [system:authenticated] map[]"},
		{"legacy, another", jane, "Impersonate-User: olga", rights{"impersonate users john"}, "403"},
		{"legacy, groups", jane, "Impersonate-User: john; Impersonate-Group: ops; Impersonate-Group: system:masters", rights{"impersonate users *", "impersonate groups *"},
			"john  [ops system:masters system:authenticated] map[]"},
		{"legacy, one group is not allowed", jane, "Impersonate-User: john; Impersonate-Group: ops; Impersonate-Group: system:masters", rights{"impersonate users *", "impersonate groups ops"}, "403"},
		{"legacy, unauthenticated", jane, "Impersonate-User: john; Impersonate-Group: system:unauthenticated", rights{"impersonate users *", "impersonate groups *"}, "john  [system:unauthenticated] map[]"},
		{"anonymous", jane, "Impersonate-User: system:anonymous", rights{"impersonate users *"}, "system:anonymous  [system:unauthenticated] map[]"},
		{"legacy, account", jane, "Impersonate-User: system:serviceaccount:shop:robot", rights{"impersonate serviceaccounts robot"},
			"system:serviceaccount:shop:robot  [system:serviceaccounts system:serviceaccounts:shop system:authenticated] map[]"},
		{"legacy, account in groups", jane, "Impersonate-User: system:serviceaccount:shop:robot; Impersonate-Group: ops", rights{"impersonate serviceaccounts robot", "impersonate groups ops"},
			"system:serviceaccount:shop:robot  [ops system:authenticated] map[]"},
		{"no account's name", jane, "Impersonate-User: system:serviceaccount:Shop:robot", rights{"impersonate serviceaccounts *"}, "403"},
		{"legacy, uid and extra", jane, "Impersonate-User: john; Impersonate-Uid: 7; Impersonate-Extra-Acme.com%2fProject: x; Impersonate-Extra-Acme.com%2fProject: y",
			rights{"impersonate users john", "impersonate uids.authentication.k8s.io 7", "impersonate userextras/acme.com/project.authentication.k8s.io *"},
			"john 7 [system:authenticated] map[acme.com/project:[x y]]"},
		{"extra is not allowed", jane, "Impersonate-User: john; Impersonate-Extra-Scope: x", rights{"impersonate users john"}, "403"},
		{"uid is not allowed", jane, "Impersonate-User: john; Impersonate-Uid: 7", rights{"impersonate users john"}, "403"},

		{"for this verb", jane, "Impersonate-User: john", rights{"impersonate-on:user-info:get pods a", "impersonate:user-info users.authentication.k8s.io john"}, "john  [system:authenticated] map[]"},
		{"for another verb", jane, "Impersonate-User: john", rights{"impersonate-on:user-info:list pods a", "impersonate:user-info users.authentication.k8s.io john"}, "403"},
		{"for this verb, masters", jane, "Impersonate-User: john; Impersonate-Group: system:masters",
			rights{"impersonate-on:user-info:get pods a", "impersonate:user-info users.authentication.k8s.io john", "impersonate:user-info groups.authentication.k8s.io *"},
			"403 groups.authentication.k8s.io \"system:masters\" is forbidden: User \"jane\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope: impersonating the system:masters group is not allowed"},
		{"for this verb, an account", jane, "Impersonate-User: system:serviceaccount:shop:robot", rights{"impersonate-on:serviceaccount:get pods *", "impersonate:serviceaccount serviceaccounts.authentication.k8s.io robot"},
			"system:serviceaccount:shop:robot  [system:serviceaccounts system:serviceaccounts:shop system:authenticated] map[]"},
		{"for this verb, not an account", jane, "Impersonate-User: system:serviceaccount:shop:robot", rights{"impersonate-on:user-info:get pods *", "impersonate:user-info users.authentication.k8s.io *"}, "403"},
		{"for this verb, a node", jane, "Impersonate-User: system:node:pi-2", rights{"impersonate-on:arbitrary-node:get pods *", "impersonate:arbitrary-node nodes.authentication.k8s.io pi-2"},
			"system:node:pi-2  [system:nodes system:authenticated] map[]"},
		{"its own node", agent, "Impersonate-User: system:node:pi-1", rights{"impersonate-on:associated-node:get pods *", "impersonate:associated-node nodes.authentication.k8s.io *"},
			"system:node:pi-1  [system:nodes system:authenticated] map[]"},
		{"another node", agent, "Impersonate-User: system:node:pi-2", rights{"impersonate-on:associated-node:get pods *", "impersonate:associated-node nodes.authentication.k8s.io *"}, "403"},

		{"group without a user", jane, "Impersonate-Group: ops", rights{"impersonate groups *"}, "400"},
		{"an empty user", jane, "Impersonate-User: ", rights{"impersonate users *"}, "400"},
		{"a header that is not known", jane, "Impersonate-User: john; Impersonate-Role: admin", rights{"impersonate users *"}, "400"},
		{"a policy that cannot be read", jane, "Impersonate-User: john", rights{"broken"}, "403"},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(test.headers, "; ") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				h.Add(name, value)
			}
		}
		u, err := User(t.Context(), test.rights, test.by, get, h)
		got := fmt.Sprintf("%s %s %v %v", u.Name, u.UID, u.Groups, u.Extra)
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			got = fmt.Sprintf("%d %s", status.Status().Code, err)
		}
		if got != test.want && !(len(test.want) == 3 && strings.HasPrefix(got, test.want)) {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
		if err == nil && Asked(h) && (u.ImpersonatedBy == nil || u.ImpersonatedBy.Name != test.by.Name) {
			t.Errorf("%s: by %+v", test.name, u.ImpersonatedBy)
		}
	}
}

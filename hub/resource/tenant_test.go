package resource

import (
	"testing"

	"petrel.dev/petrel/internal/kube"
)

func TestTenantOf(t *testing.T) {
	kinds := New()
	key := func(gvk kube.GVK, namespace, name string) string {
		k, ok := kinds.Lookup(gvk)
		if !ok {
			t.Fatal(gvk)
		}
		return Key(k, namespace, name)
	}
	for want, keys := range map[string][]string{
		"team": {key(kube.Pod, "team", "a"), key(kube.Deployment, "team", "a")},
		"":     {key(kube.Node, "", "a"), key(kube.Secret, "kube-system", "a"), "", "/", "/core/pods"},
	} {
		for _, k := range keys {
			if got := TenantOf(k); got != want {
				t.Errorf("%q counts against %q, not %q", k, got, want)
			}
		}
	}
}

package resource_test

import (
	"testing"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

func TestTenantOf(t *testing.T) {
	kinds := builtin.New()
	key := func(gvk kube.GVK, namespace, name string) string {
		k, ok := kinds.Lookup(gvk)
		if !ok {
			t.Fatal(gvk)
		}
		return resource.Key(k, namespace, name)
	}
	for want, keys := range map[string][]string{
		"team": {key(kube.Pod, "team", "a"), key(kube.Deployment, "team", "a")},
		"":     {key(kube.Node, "", "a"), key(kube.Secret, "kube-system", "a"), "", "/", "/core/pods"},
	} {
		for _, k := range keys {
			if got := resource.TenantOf(k); got != want {
				t.Errorf("%q counts against %q, not %q", k, got, want)
			}
		}
	}
}

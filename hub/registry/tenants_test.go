package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// TestOneNamespaceDoesNotFillTheStore checks that a user who creates all that he can in one namespace is refused at its share,
// with the reason. Other namespaces have room, deletions go on, and the administrator may use the rest.
func TestOneNamespaceDoesNotFillTheStore(t *testing.T) {
	r := registrytest.Start(t, registry.Config{Store: registrytest.Shared(t, 200<<10)})
	noisy := auth.WithUser(t.Context(), auth.User{Name: "noisy", Groups: []string{"system:authenticated"}})
	quiet := auth.WithUser(t.Context(), auth.User{Name: "quiet", Groups: []string{"system:authenticated"}})
	admin := auth.WithUser(t.Context(), auth.User{Name: "ada", Groups: []string{"system:masters"}})
	large := strings.Repeat("x", 10<<10)
	greedy, others := registrytest.Target(t, kube.ConfigMap, "greedy", ""), registrytest.Target(t, kube.ConfigMap, "default", "")

	n, refusal := 0, error(nil)
	for ; refusal == nil; n++ {
		cm := configMap(fmt.Sprint("n", n), "k", large)
		cm.Namespace = "greedy"
		_, refusal = r.Create(noisy, greedy, cm, &metav1.CreateOptions{})
	}
	if n--; n < 8 || n > 9 {
		t.Errorf("%d objects of 10 KiB went into half of 200 KiB", n)
	}
	registrytest.WantError(t, refusal, http.StatusInsufficientStorage, `namespace "greedy" holds 9`)
	registrytest.WantError(t, refusal, http.StatusInsufficientStorage, "--store-limit")

	for i := range 3 {
		if _, err := r.Create(quiet, others, configMap(fmt.Sprint("q", i), "k", large), &metav1.CreateOptions{}); err != nil {
			t.Errorf("another namespace: %v", err)
		}
	}
	cm := configMap("admin", "k", large)
	cm.Namespace = "greedy"
	if _, err := r.Create(admin, greedy, cm, &metav1.CreateOptions{}); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	if _, err := r.Delete(noisy, registrytest.Target(t, kube.ConfigMap, "greedy", "n0"), &metav1.DeleteOptions{}); err != nil {
		t.Errorf("a deletion: %v", err)
	}
}

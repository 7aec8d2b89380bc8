package job

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
	memstore "petrel.dev/petrel/sqlstore/memory"
)

// TestScriptsOverTheRegistry runs the timelines by the rules of the API: each status that the controller writes passes upstream's
// validation, and a pod with the finalizer goes when the last reason for it to stay is gone.
func TestScriptsOverTheRegistry(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts")
	}
	names := regexp.MustCompile(`default/x-\w+`)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			if filepath.Base(f) == "policy.txt" {
				t.Skip("its Event has the name of a pod, which the API chooses")
			}
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))) // the hub takes no earlier time for real
				r := registrytest.Start(t, registry.Config{Store: memstore.New(memstore.Config{}), Kinds: registrytest.Kinds()})
				api := &realCluster{r.Client(), t}
				if _, err := api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}); err != nil {
					t.Fatal(err)
				}
				w := newWorld(t, api)
				w.start()
				controltest.Script(t, f, func(cmd string, args []string) string {
					return names.ReplaceAllString(w.command(cmd, args), "default/x")
				})
				w.stop()
			})
		})
	}
}

// realCluster is a registry, whose Remove speaks as a user does.
type realCluster struct {
	control.Client
	t *testing.T
}

func (c *realCluster) Remove(gvk kube.GVK, namespace, name string) {
	background := metav1.DeletePropagationBackground
	c.must(c.Delete(c.t.Context(), gvk, namespace, name, metav1.DeleteOptions{PropagationPolicy: &background}))
}

func (c *realCluster) Stored(gvk kube.GVK, namespace string) []kube.Object {
	c.must(c.CatchUp(c.t.Context()))
	return c.List(gvk, namespace)
}

func (c *realCluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

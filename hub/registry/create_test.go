package registry_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

func TestCreateFirst(t *testing.T) {
	r := registrytest.New(t)
	ctx := context.Background()
	c := r.Client()
	o, err := c.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Data: map[string]string{"x": "y"}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Get(ctx, registrytest.Target(t, kube.ConfigMap, "default", "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(res.JSON), `"resourceVersion":"`+o.GetResourceVersion()+`"`) {
		t.Fatal(string(res.JSON))
	}
	t.Log(string(res.JSON))
}

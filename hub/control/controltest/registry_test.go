package controltest_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry/registrytest"
)

func TestRegistryKeepsTheContract(t *testing.T) {
	c := registrytest.New(t).Client()
	if _, err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}}); err != nil {
		t.Fatal(err)
	}
	controltest.Contract(t, c, func() {
		if err := c.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

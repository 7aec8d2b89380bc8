package controltest_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func TestFakeKeepsTheContract(t *testing.T) {
	controltest.Contract(t, controltest.New(t), func() {})
}

func TestCommitIsAllOrNothing(t *testing.T) {
	c := controltest.New(t)
	a := c.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"}})
	c.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"}, Data: map[string]string{"newer": "1"}})
	err := c.Commit(t.Context(), []control.Write{
		{Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "b"}}},
		{Old: a, Delete: true},
	})
	if !apierrors.IsConflict(err) {
		t.Fatalf("commit: %v", err)
	}
	if got := c.Stored(kube.ConfigMap, "x"); len(got) != 1 {
		t.Errorf("half a commit: %v", got)
	}
}

func TestLagHidesWritesFromReaders(t *testing.T) {
	c := controltest.New(t)
	c.Lag(true)
	if _, err := c.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	if got := c.List(kube.ConfigMap, ""); len(got) != 0 {
		t.Errorf("lagging cache shows %v", got)
	}
	if left := c.Step(1); left != 0 || len(c.List(kube.ConfigMap, "")) != 1 {
		t.Error("one step should show the one change")
	}
}

func TestNamespaceStaysUntilFinalized(t *testing.T) {
	c := controltest.New(t)
	made, err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), kube.Namespace, "", "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ns, ok := control.Get[*corev1.Namespace](c, kube.Namespace, "", "x")
	if !ok || ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
		t.Fatalf("namespace: %+v", ns)
	}
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = nil
	if _, err := c.Update(t.Context(), ns, "finalize"); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(kube.Namespace, "", made.GetName()); ok {
		t.Error("namespace is still there")
	}
}

package apiserver_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamicinformer"

	"petrel.dev/petrel/internal/kube"
)

// Such objects are collected with their owners and go with their namespace; once the kind is gone nothing waits for them.
func TestCustomKindIsCollected(t *testing.T) {
	t.Parallel()
	h, dyn := customHub(t)
	ctx := t.Context()
	h.addWidgets()
	c := dyn.Resource(widgetGVR).Namespace("default")
	maps := h.client().CoreV1().ConfigMaps("default")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	noWidget := func(name string) func() bool {
		return func() bool { _, err := c.Get(ctx, name, metav1.GetOptions{}); return apierrors.IsNotFound(err) }
	}
	noMap := func(name string) func() bool {
		return func() bool { _, err := maps.Get(ctx, name, metav1.GetOptions{}); return apierrors.IsNotFound(err) }
	}
	foreground, background := metav1.DeletePropagationForeground, metav1.DeletePropagationBackground
	newMap := func(name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
		m, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners}}, metav1.CreateOptions{})
		must(err)
		return m
	}

	owner, err := c.Create(ctx, newWidget("owner", nil), metav1.CreateOptions{})
	must(err)
	newMap("of-widget", ownedBy(owner, widgetGVK)...)
	must(c.Delete(ctx, "owner", metav1.DeleteOptions{PropagationPolicy: &foreground}))
	eventually(t, "the ConfigMap goes with the Widget that owns it", noMap("of-widget"))
	eventually(t, "the Widget goes after its ConfigMap", noWidget("owner"))

	keeper := newMap("keeper")
	dependent := newWidget("of-map", nil)
	dependent.SetOwnerReferences(ownedBy(keeper, kube.ConfigMap))
	_, err = c.Create(ctx, dependent, metav1.CreateOptions{})
	must(err)
	must(maps.Delete(ctx, "keeper", metav1.DeleteOptions{PropagationPolicy: &background}))
	eventually(t, "the Widget goes with the ConfigMap that owns it", noWidget("of-map"))

	// A namespace takes its Widgets along.
	h.namespace("full")
	elsewhere := dyn.Resource(widgetGVR).Namespace("full")
	held := newWidget("held", nil)
	held.SetFinalizers([]string{"example.dev/hold"})
	for _, w := range []*unstructured.Unstructured{newWidget("free", nil), held} {
		_, err := elsewhere.Create(ctx, w, metav1.CreateOptions{})
		must(err)
	}
	namespaces := h.client().CoreV1().Namespaces()
	must(namespaces.Delete(ctx, "full", metav1.DeleteOptions{}))
	eventually(t, "the namespace waits for the one Widget that is held", func() bool {
		ns, err := namespaces.Get(ctx, "full", metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceContentRemaining && c.Message == "Some resources are remaining: widgets.example.dev has 1 resource instances"
		})
	})
	// So does an owner that is deleted in the foreground.
	keeper = newMap("waiting")
	blocker := newWidget("blocker", nil)
	blocker.SetOwnerReferences(ownedBy(keeper, kube.ConfigMap))
	blocker.SetFinalizers([]string{"example.dev/hold"})
	_, err = c.Create(ctx, blocker, metav1.CreateOptions{})
	must(err)
	must(maps.Delete(ctx, "waiting", metav1.DeleteOptions{PropagationPolicy: &foreground}))
	eventually(t, "the Widget that is held is being deleted", func() bool {
		b, err := c.Get(ctx, "blocker", metav1.GetOptions{})
		return err == nil && b.GetDeletionTimestamp() != nil
	})
	if _, err := maps.Get(ctx, "waiting", metav1.GetOptions{}); err != nil {
		t.Errorf("the owner did not wait for what blocks it: %v", err)
	}

	h.kinds.Remove(widgetGVK)
	eventually(t, "the owner waits for no Widget once there are none", noMap("waiting"))
	eventually(t, "the namespace neither", func() bool {
		_, err := namespaces.Get(ctx, "full", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// Watches end with the kind; requests are refused; an informer that runs on finds everything when the kind is served again.
func TestCustomKindGoesAndComes(t *testing.T) {
	t.Parallel()
	h, dyn := customHub(t)
	ctx := t.Context()
	h.addWidgets()
	c := dyn.Resource(widgetGVR).Namespace("default")
	if _, err := c.Create(ctx, newWidget("a", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
	informer := factory.ForResource(widgetGVR)
	informer.Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	knows := func(name string) func() bool {
		return func() bool { _, err := informer.Lister().ByNamespace("default").Get(name); return err == nil }
	}
	if !knows("a")() {
		t.Error("the informer does not know what is there")
	}
	w, err := c.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e, ok := nextEvent(t, w); !ok || e.Type != watch.Added {
		t.Fatalf("watched %v", e)
	}
	h.kinds.Remove(widgetGVK)
	if e, ok := nextEvent(t, w); !ok || e.Type != watch.Error {
		t.Errorf("watched %v, want the error that ends it", e)
	} else {
		notServed(t, apierrors.FromObject(e.Object))
	}
	if e, ok := nextEvent(t, w); ok {
		t.Errorf("watched %v after its end", e)
	}
	_, err = c.Get(ctx, "a", metav1.GetOptions{})
	notServed(t, err)
	_, err = c.List(ctx, metav1.ListOptions{})
	notServed(t, err)
	_, err = c.Watch(ctx, metav1.ListOptions{})
	notServed(t, err)
	_, err = c.Create(ctx, newWidget("b", nil), metav1.CreateOptions{})
	notServed(t, err)
	notServed(t, c.Delete(ctx, "a", metav1.DeleteOptions{}))

	h.addWidgets()
	if got, err := c.Get(ctx, "a", metav1.GetOptions{}); err != nil || got.GetName() != "a" {
		t.Errorf("served again: %v, %v", got, err)
	}
	owner, err := c.Create(ctx, newWidget("b", nil), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the informer sees what came after the kind did", knows("b"))
	maps := h.client().CoreV1().ConfigMaps("default")
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "of-b", OwnerReferences: ownedBy(owner, widgetGVK)}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its dependents are collected again", func() bool {
		_, err := maps.Get(ctx, "of-b", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

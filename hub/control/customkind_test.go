package control_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/gc"
	"petrel.dev/petrel/hub/control/namespace"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore/memory"
)

// A kind comes and goes many times under the loops, with watches open and writers at work, and leaves nothing behind: every
// watch ends with its kind, and the test's bubble ends only when no goroutine is left.
func TestCustomKindLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gvk := kube.GVK{Group: "example.dev", Version: "v1", Kind: "Widget"}
		declare := func() *resource.Kind {
			return resource.Custom{GVK: gvk, Plural: "widgets", Singular: "widget", Namespaced: true}.Kind()
		}
		store, kinds := memory.New(memory.Config{}), builtin.New()
		r := registrytest.Start(t, registry.Config{Store: store, Kinds: kinds})
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		c := r.Client()
		for _, l := range []interface{ Run(context.Context) error }{
			gc.New(gc.Config{Client: c, Events: &controltest.Events{}, Kinds: r.StoredKinds()}),
			namespace.New(namespace.Config{Client: c, Kinds: r.StoredKinds()}),
		} {
			loops.Go(func() { _ = l.Run(ctx) })
		}
		create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
		owner := create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "owner"}})
		for round := range 20 {
			k := declare()
			if err := kinds.Add(k); err != nil {
				t.Fatal(err)
			}
			all := resource.Target{Kind: k, Namespace: "default"}
			var watching sync.WaitGroup
			for range 8 {
				w, err := r.Watch(ctx, all, &metav1.ListOptions{AllowWatchBookmarks: true})
				if err != nil {
					t.Fatal(err)
				}
				watching.Go(func() {
					defer w.Close()
					for {
						if _, err := w.Next(ctx); err != nil {
							if !apierrors.IsNotFound(err) {
								t.Errorf("a watch ended with %v", err)
							}
							return
						}
					}
				})
			}
			for i := range 10 {
				watching.Go(func() {
					obj := k.New()
					obj.SetNamespace("default")
					obj.SetName(fmt.Sprintf("w-%d-%d", round, i))
					if i%2 == 0 {
						obj.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(owner, kube.ConfigMap)})
					}
					if _, err := r.Create(ctx, all, obj, nil); err != nil {
						t.Error(err)
					}
				})
			}
			if round%2 == 0 {
				synctest.Wait() // otherwise the kind goes in the middle of it all
			}
			kinds.Remove(gvk)
			watching.Wait()
			if objs := c.List(gvk, ""); len(objs) != 0 {
				t.Errorf("%d objects are read of a kind that is gone", len(objs))
			}
		}
		if err := kinds.Add(declare()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(c.List(gvk, "")); n != 200 {
			t.Errorf("%d of 200 objects are there in the end", n)
		}
		if err := c.Delete(ctx, kube.ConfigMap, "default", "owner", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(c.List(gvk, "")); n != 100 {
			t.Errorf("%d objects after their owner has gone, want the 100 without one", n)
		}
		if err := c.Delete(ctx, kube.Namespace, "", "default", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(c.List(gvk, "")); n != 0 {
			t.Errorf("%d objects after their namespace has gone", n)
		}
		cancel()
		loops.Wait()
	})
}

package registry_test

import (
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

var widgetGVK = kube.GVK{Group: "example.dev", Version: "v1", Kind: "Widget"}

func widgetKind() *resource.Kind {
	return resource.Custom{GVK: widgetGVK, Plural: "widgets", Singular: "widget", Namespaced: true}.Kind()
}

func newWidget(k *resource.Kind, name string) kube.Object {
	obj := k.New()
	obj.SetNamespace("default")
	obj.SetName(name)
	return obj
}

// A watch ends with its kind, whether it stands at the end of history or has events that nobody has fetched; another one of the
// kind is not begun. The watches of other kinds go on.
func TestWatchesEndWithTheirKind(t *testing.T) {
	kinds, k := builtin.New(), widgetKind()
	if err := kinds.Add(k); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	all := resource.Target{Kind: k, Namespace: "default"}
	open := func(target resource.Target) registry.Watch {
		t.Helper()
		w, err := r.Watch(ctx, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		return w
	}
	silent, behind, other := open(all), open(all), open(registrytest.Target(t, kube.ConfigMap, "default", ""))
	ended := make(chan error, 1)
	go func() {
		_, err := silent.Next(ctx)
		if err == nil {
			_, err = silent.Next(ctx)
		}
		ended <- err
	}()
	if _, err := r.Create(ctx, all, newWidget(k, "a"), nil); err != nil {
		t.Fatal(err)
	}
	kinds.Remove(widgetGVK)
	registrytest.WantError(t, <-ended, 404, "could not find the requested resource")
	eventually(t, "the watch with an event ends", func() bool {
		_, err := behind.Next(ctx)
		return apierrors.IsNotFound(err)
	})
	_, err := r.Watch(ctx, all, nil)
	registrytest.WantError(t, err, 404, "could not find the requested resource")
	if _, err := r.Create(ctx, registrytest.Target(t, kube.ConfigMap, "default", ""), configMap("a"), nil); err != nil {
		t.Fatal(err)
	}
	if events, err := other.Next(ctx); err != nil || len(events) != 1 {
		t.Errorf("the watch of another kind: %v, %v", events, err)
	}
	if err := kinds.Add(k); err != nil {
		t.Fatal(err)
	}
	again := open(all)
	if events, err := again.Next(ctx); err != nil || len(events) != 1 {
		t.Errorf("a watch of the kind that is served again: %v, %v", events, err)
	}
}

// Any kind may have a TTL, also one that comes while the hub runs: its objects go by their age and their number.
func TestAnyKindMayExpire(t *testing.T) {
	kinds := builtin.New()
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	k := widgetKind()
	k.TTL = &resource.TTL{After: time.Hour, MaxObjects: 10}
	if err := kinds.Add(k); err != nil {
		t.Fatal(err)
	}
	all := resource.Target{Kind: k, Namespace: "default"}
	list := func(all resource.Target) map[types.UID]string {
		t.Helper()
		res, err := r.List(ctx, all, nil)
		if err != nil {
			t.Fatal(err)
		}
		out := map[types.UID]string{}
		for _, item := range res.Items {
			m := registrytest.Decode[metav1.PartialObjectMetadata](t, item)
			out[m.UID] = m.Name
		}
		return out
	}
	for i := range 30 {
		if _, err := r.Create(ctx, all, newWidget(k, fmt.Sprintf("w%02d", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "ten widgets at most", func() bool { return len(list(all)) <= 10 })

	// Declared anew, with a time that is over for all of them.
	kinds.Remove(widgetGVK)
	old := widgetKind()
	old.TTL = &resource.TTL{After: time.Minute, LastWrite: func([]byte) time.Time { return time.Now().Add(-time.Hour) }}
	if err := kinds.Add(old); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no widgets", func() bool { return len(list(all)) == 0 })

	// Without a TTL they stay.
	kinds.Remove(widgetGVK)
	if err := kinds.Add(widgetKind()); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		if _, err := r.Create(ctx, all, newWidget(k, fmt.Sprintf("w%02d", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(list(all)); n != 12 {
		t.Errorf("%d widgets, want 12", n)
	}
}

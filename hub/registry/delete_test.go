package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// clock is what a test says it is.
type clock struct{ past atomic.Int64 }

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func (c *clock) now() time.Time { return noon.Add(time.Duration(c.past.Load())) }

func (c *clock) pass(d time.Duration) { c.past.Add(int64(d)) }

func TestDeleteAnswers(t *testing.T) {
	r := registrytest.New(t)
	cm := registrytest.Create(t, r, configMap("a"))
	res, err := r.Delete(ctx, registrytest.Target(t, kube.ConfigMap, "default", "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	st := registrytest.Decode[metav1.Status](t, res.JSON)
	if st.Kind != "Status" || st.Status != "Success" || st.Details.Name != "a" || st.Details.Kind != "configmaps" || st.Details.UID != cm.UID {
		t.Errorf("a deleted ConfigMap answers %s", res.JSON)
	}
	registrytest.Create(t, r, newPod("p", ""))
	res, err = r.Delete(ctx, registrytest.Target(t, kube.Pod, "default", "p"), nil)
	if err != nil || !strings.Contains(string(res.JSON), `"kind":"Pod"`) || res.Accepted {
		t.Errorf("a deleted pod answers %+v, %v", res, err)
	}
	_, err = r.Delete(ctx, registrytest.Target(t, kube.Pod, "default", "p"), nil)
	registrytest.WantError(t, err, 404, `pods "p" not found`)
}

func TestDeletePreconditions(t *testing.T) {
	r := registrytest.New(t)
	cm := registrytest.Create(t, r, configMap("a"))
	at := registrytest.Target(t, kube.ConfigMap, "default", "a")
	uid, rv := types.UID("x"), "77"
	_, err := r.Delete(ctx, at, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	registrytest.WantError(t, err, 409, fmt.Sprintf("the UID in the precondition (x) does not match the UID in record (%s)", cm.UID))
	_, err = r.Delete(ctx, at, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &rv}})
	registrytest.WantError(t, err, 409, "the ResourceVersion in the precondition (77) does not match the ResourceVersion in record (1)")
	bad := metav1.DeletionPropagation("Sideways")
	_, err = r.Delete(ctx, at, &metav1.DeleteOptions{PropagationPolicy: &bad})
	registrytest.WantError(t, err, 422, "propagationPolicy")
	if _, err = r.Delete(ctx, at, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &cm.UID, ResourceVersion: &cm.ResourceVersion}}); err != nil {
		t.Fatal(err)
	}
}

func TestFinalizersHoldTheObject(t *testing.T) {
	r := registrytest.New(t)
	cm := configMap("a")
	cm.Finalizers = []string{"example.com/one", "example.com/two"}
	registrytest.Create(t, r, cm)
	at := registrytest.Target(t, kube.ConfigMap, "default", "a")
	res, err := r.Delete(ctx, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	marked := registrytest.Decode[corev1.ConfigMap](t, res.JSON)
	if marked.DeletionTimestamp == nil || marked.DeletionGracePeriodSeconds == nil || *marked.DeletionGracePeriodSeconds != 0 {
		t.Fatalf("marked: %s", res.JSON)
	}
	again, err := r.Delete(ctx, at, nil)
	if err != nil || registrytest.Decode[corev1.ConfigMap](t, again.JSON).ResourceVersion != marked.ResourceVersion {
		t.Fatalf("deleting again changed %s, %v", again.JSON, err)
	}
	_, err = r.Patch(ctx, at, types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/one","example.com/two","example.com/late"]}}`), nil)
	registrytest.WantError(t, err, 422, "no new finalizers can be added if the object is being deleted")
	_, err = r.Patch(ctx, at, types.MergePatchType, []byte(`{"metadata":{"deletionTimestamp":null,"finalizers":["example.com/two"]}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err = r.Get(ctx, at, nil); err != nil || registrytest.Decode[corev1.ConfigMap](t, res.JSON).DeletionTimestamp == nil {
		t.Fatalf("a patch undid the deletion: %s %v", res.JSON, err)
	}
	if _, err = r.Patch(ctx, at, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers/0"}]`), nil); err != nil {
		t.Fatal(err)
	}
	_, err = r.Get(ctx, at, nil)
	registrytest.WantError(t, err, 404, "")
}

func TestPropagationLeavesOrdersForTheCollector(t *testing.T) {
	orphan, foreground, background := metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground, metav1.DeletePropagationBackground
	yes, no := true, false
	for name, test := range map[string]struct {
		had  []string
		opts metav1.DeleteOptions
		want []string // nil: gone
	}{
		"default":    {nil, metav1.DeleteOptions{}, nil},
		"background": {nil, metav1.DeleteOptions{PropagationPolicy: &background}, nil},
		"foreground": {nil, metav1.DeleteOptions{PropagationPolicy: &foreground}, []string{"foregroundDeletion"}},
		"orphan":     {nil, metav1.DeleteOptions{PropagationPolicy: &orphan}, []string{"orphan"}},
		//lint:ignore SA1019 clients still send it
		"orphanDependents": {nil, metav1.DeleteOptions{OrphanDependents: &yes}, []string{"orphan"}},
		//lint:ignore SA1019 clients still send it
		"no orphanDependents": {[]string{"orphan"}, metav1.DeleteOptions{OrphanDependents: &no}, nil},
		"had foreground":      {[]string{"foregroundDeletion"}, metav1.DeleteOptions{}, []string{"foregroundDeletion"}},
		"changed":             {[]string{"orphan", "a.b/c"}, metav1.DeleteOptions{PropagationPolicy: &foreground}, []string{"a.b/c", "foregroundDeletion"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			cm := configMap("a")
			cm.Finalizers = test.had
			registrytest.Create(t, r, cm)
			at := registrytest.Target(t, kube.ConfigMap, "default", "a")
			if _, err := r.Delete(ctx, at, &test.opts); err != nil {
				t.Fatal(err)
			}
			res, err := r.Get(ctx, at, nil)
			if test.want == nil {
				registrytest.WantError(t, err, 404, "")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := registrytest.Decode[corev1.ConfigMap](t, res.JSON); !slices.Equal(got.Finalizers, test.want) || got.DeletionTimestamp == nil {
				t.Errorf("left %s", res.JSON)
			}
		})
	}
}

// A pod that runs somewhere gets its grace period, which can be shortened and not lengthened, and goes when the node says so.
func TestGrace(t *testing.T) {
	c := &clock{}
	r := registrytest.Start(t, registry.Config{Clock: c.now})
	registrytest.Create(t, r, newPod("p", "edge-1"))
	at := registrytest.Target(t, kube.Pod, "default", "p")
	del := func(grace int64) *corev1.Pod {
		t.Helper()
		opts := &metav1.DeleteOptions{}
		if grace >= 0 {
			opts.GracePeriodSeconds = &grace
		}
		res, err := r.Delete(ctx, at, opts)
		if err != nil {
			t.Fatal(err)
		}
		return registrytest.Decode[corev1.Pod](t, res.JSON)
	}
	check := func(p *corev1.Pod, grace int64, until time.Duration) {
		t.Helper()
		if *p.DeletionGracePeriodSeconds != grace || !p.DeletionTimestamp.Time.Equal(noon.Add(until)) {
			t.Fatalf("grace %d until %v, want %d until +%v", *p.DeletionGracePeriodSeconds, p.DeletionTimestamp, grace, until)
		}
	}
	first := del(-1)
	check(first, 30, 30*time.Second)
	c.pass(5 * time.Second)
	check(del(60), 30, 30*time.Second)
	check(del(-1), 30, 30*time.Second)
	check(del(10), 10, 10*time.Second)
	c.pass(10 * time.Second)
	check(del(2), 1, 15*time.Second)
	w, err := r.Watch(ctx, registrytest.Target(t, kube.Pod, "default", ""), &metav1.ListOptions{ResourceVersion: first.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	del(0)
	_, err = r.Get(ctx, at, nil)
	registrytest.WantError(t, err, 404, "")
	var last registry.WatchEvent
	for last.Type != "DELETED" {
		evs, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		last = evs[len(evs)-1]
	}
	if p := registrytest.Decode[corev1.Pod](t, last.JSON); *p.DeletionGracePeriodSeconds != 0 {
		t.Errorf("the last state seen is %s", last.JSON)
	}
}

func TestNamespaceGoesWhenFinalized(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	at := registrytest.Target(t, kube.Namespace, "", "a")
	for range 2 {
		res, err := r.Delete(ctx, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ns := registrytest.Decode[corev1.Namespace](t, res.JSON); ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil || ns.ResourceVersion != "2" {
			t.Fatalf("deleting made %s", res.JSON)
		}
	}
	finalize := at
	finalize.Subresource = "finalize"
	if _, err := r.Update(ctx, finalize, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := r.Get(ctx, at, nil)
	registrytest.WantError(t, err, 404, `namespaces "a" not found`)
}

func TestDeleteCollection(t *testing.T) {
	r := registrytest.New(t)
	for i := range 40 {
		cm := configMap(fmt.Sprintf("cm-%02d", i))
		cm.Labels = map[string]string{"odd": fmt.Sprint(i % 2)}
		registrytest.Create(t, r, cm)
	}
	elsewhere := configMap("cm-01")
	elsewhere.Namespace, elsewhere.Labels = "other", map[string]string{"odd": "1"}
	registrytest.Create(t, r, elsewhere)
	all := registrytest.Target(t, kube.ConfigMap, "default", "")
	res, err := r.DeleteCollection(ctx, all, nil, &metav1.ListOptions{LabelSelector: "odd=1"})
	if err != nil || len(res.Items) != 20 {
		t.Fatalf("%v, %d items", err, len(res.Items))
	}
	left, err := r.List(ctx, registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || len(left.Items) != 21 {
		t.Fatalf("%v, %d left", err, len(left.Items))
	}
}

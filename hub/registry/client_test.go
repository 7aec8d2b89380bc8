package registry_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// eventually waits until the cache shows what was written: a read may be older than one's own write.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func names(objs []kube.Object) string {
	var out []string
	for _, o := range objs {
		out = append(out, o.GetNamespace()+"/"+o.GetName())
	}
	return strings.Join(out, " ")
}

func TestReader(t *testing.T) {
	r := registrytest.New(t)
	c := r.Client()
	registrytest.Create(t, r, newPod("early", "edge-1"))
	for _, p := range []*corev1.Pod{newPod("b", "edge-1"), newPod("a", "edge-2"), newPod("c", "")} {
		registrytest.Create(t, r, p)
	}
	far := newPod("a", "edge-1")
	far.Namespace = "default-2"
	registrytest.Create(t, r, far)
	want := "default-2/a default/a default/b default/c default/early"
	eventually(t, want, func() bool { return names(c.List(kube.Pod, "")) == want })
	if got := names(c.List(kube.Pod, "default")); got != "default/a default/b default/c default/early" {
		t.Errorf("of one namespace: %s", got)
	}
	if got := names(c.Index(kube.Pod, "node", "edge-1")); got != "default-2/a default/b default/early" {
		t.Errorf("on edge-1: %s", got)
	}
	if _, ok := c.Get(kube.Pod, "default", "zzz"); ok {
		t.Error("got a pod that is not there")
	}
	p, ok := control.Get[*corev1.Pod](c, kube.Pod, "default", "c")
	if !ok || p.Kind != "Pod" || p.ResourceVersion == "" {
		t.Errorf("got %+v", p)
	}
	// A binding moves the pod in the index, a deletion takes it out.
	p = p.DeepCopy()
	p.Spec.NodeName = "edge-2"
	if err := c.Commit(ctx, []control.Write{{Object: p, Old: p, Subresource: "binding"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, kube.Pod, "default", "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "c on edge-2", func() bool { return names(c.Index(kube.Pod, "node", "edge-2")) == "default/c" })
}

// The object that a writer made is the one that the cache holds: nothing was decoded on the way.
func TestWriterHandsItsObjectToTheCache(t *testing.T) {
	r := registrytest.New(t)
	c := r.Client()
	c.List(kube.ConfigMap, "")
	made, err := c.Create(ctx, configMap("a"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the same object", func() bool {
		o, ok := c.Get(kube.ConfigMap, "default", "a")
		return ok && o == made
	})
}

func TestSubscribe(t *testing.T) {
	r := registrytest.New(t)
	c := r.Client()
	registrytest.Create(t, r, configMap("before"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	var seen []string
	c.Subscribe(ctx, func(ch control.Change) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case ch.Old == nil:
			seen = append(seen, "+"+ch.New.GetName())
		case ch.New == nil:
			seen = append(seen, "-"+ch.Old.GetName())
		default:
			if ch.Old.GetResourceVersion() >= ch.New.GetResourceVersion() {
				t.Errorf("old %s, new %s", ch.Old.GetResourceVersion(), ch.New.GetResourceVersion())
			}
			seen = append(seen, "~"+ch.New.GetName())
		}
	}, kube.ConfigMap, kube.Secret)
	mu.Lock()
	if !slices.Equal(seen, []string{"+before"}) {
		t.Errorf("at return it had delivered %v", seen)
	}
	mu.Unlock()
	registrytest.Create(t, r, newPod("not-asked-for", ""))
	a := registrytest.Create(t, r, configMap("a"))
	registrytest.Create(t, r, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}})
	a.Data["k"] = "v"
	if _, err := c.Update(ctx, a, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, kube.ConfigMap, "default", "before", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want := []string{"+before", "+a", "+s", "~a", "-before"}
	eventually(t, fmt.Sprint(want), func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) >= len(want) })
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(seen, want) {
		t.Errorf("delivered %v, want %v", seen, want)
	}
}

func TestCommitIsAllOrNothing(t *testing.T) {
	r := registrytest.New(t)
	c := r.Client()
	a, b := registrytest.Create(t, r, configMap("a")), registrytest.Create(t, r, configMap("b"))
	next := a.DeepCopy()
	next.Data = map[string]string{"k": "v"}
	stale := b.DeepCopy()
	stale.ResourceVersion = "1"
	err := c.Commit(ctx, []control.Write{{Object: next, Old: a}, {Object: configMap("c")}, {Object: b, Old: stale}})
	if !apierrors.IsConflict(err) {
		t.Fatalf("a stale write gave %v", err)
	}
	err = c.Commit(ctx, []control.Write{{Object: configMap("c")}, {Object: configMap("a")}})
	if !apierrors.IsAlreadyExists(err) {
		t.Fatalf("a second creation gave %v", err)
	}
	err = c.Commit(ctx, []control.Write{{Object: configMap("c")}, {Object: configMap("d"), Old: configMap("d")}})
	if !apierrors.IsNotFound(err) {
		t.Fatalf("an update of nothing gave %v", err)
	}
	list, err := r.List(ctx, registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || list.ResourceVersion != "2" {
		t.Fatalf("a refused commit left the log at %s, %v", list.ResourceVersion, err)
	}
	if err := c.Commit(ctx, []control.Write{{Object: next, Old: a}, {Object: configMap("c")}, {Old: b, Delete: true}}); err != nil {
		t.Fatal(err)
	}
	list, err = r.List(ctx, registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || list.ResourceVersion != "5" || len(list.Items) != 2 || !strings.Contains(string(list.Items[0]), `"k":"v"`) {
		t.Fatalf("committed %s at %s, %v", list.Items, list.ResourceVersion, err)
	}
}

func TestCommitStatusAndBindings(t *testing.T) {
	r := registrytest.New(t)
	c := r.Client()
	p, q := registrytest.Create(t, r, newPod("p", "")), registrytest.Create(t, r, newPod("q", ""))
	running := q.DeepCopy()
	running.Status.Phase, running.Spec.NodeName = corev1.PodRunning, "not-by-status"
	bound := p.DeepCopy()
	bound.Spec.NodeName = "edge-1"
	if err := c.Commit(ctx, []control.Write{{Object: bound, Subresource: "binding"}, {Object: running, Old: q, Subresource: "status"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both changed", func() bool {
		p, _ := control.Get[*corev1.Pod](c, kube.Pod, "default", "p")
		q, _ := control.Get[*corev1.Pod](c, kube.Pod, "default", "q")
		return p.Spec.NodeName == "edge-1" && q.Status.Phase == corev1.PodRunning && q.Spec.NodeName == ""
	})
	err := c.Commit(ctx, []control.Write{{Object: bound, Subresource: "binding"}})
	registrytest.WantError(t, err, 409, "is already assigned to node")
}

// A commit of nothing new costs no revision.
func TestCommitLeavesOutWhatChangesNothing(t *testing.T) {
	r := registrytest.New(t)
	a := registrytest.Create(t, r, configMap("a"))
	if err := r.Client().Commit(ctx, []control.Write{{Object: a, Old: a}}); err != nil {
		t.Fatal(err)
	}
	list, err := r.List(ctx, registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || list.ResourceVersion != "1" {
		t.Fatalf("the log is at %s, %v", list.ResourceVersion, err)
	}
}

// gate is an admission that stamps what is created and refuses what is marked.
type gate struct{}

func (gate) Mutate(_ context.Context, a *registry.AdmissionRequest) error {
	if a.Operation == registry.OpCreate && a.Object != nil && a.Body == nil {
		a.Object.SetAnnotations(map[string]string{"stamp": string(a.Operation)})
	}
	return nil
}

func (gate) Validate(_ context.Context, a *registry.AdmissionRequest) error {
	subject := a.Object
	if subject == nil {
		subject = a.Old
	}
	if subject.GetLabels()["refuse"] == string(a.Operation) {
		return apierrors.NewForbidden(a.Target.Kind.Resource(), subject.GetName(), fmt.Errorf("it is marked"))
	}
	return nil
}

func TestAdmission(t *testing.T) {
	r := registrytest.Start(t, registry.Config{Admission: gate{}})
	marked := func(name, op string) *corev1.ConfigMap {
		cm := configMap(name)
		cm.Labels = map[string]string{"refuse": op}
		return cm
	}
	_, err := r.Client().Create(ctx, marked("a", "CREATE"))
	registrytest.WantError(t, err, 403, `configmaps "a" is forbidden: it is marked`)
	if cm := registrytest.Create(t, r, marked("b", "DELETE")); cm.Annotations["stamp"] != "CREATE" {
		t.Errorf("created %v", cm)
	}
	registrytest.WantError(t, r.Client().Delete(ctx, kube.ConfigMap, "default", "b", metav1.DeleteOptions{}), 403, "it is marked")
	_, err = r.Client().Update(ctx, marked("b", "UPDATE"), "")
	registrytest.WantError(t, err, 403, "it is marked")
}

// A feed whose place in history is gone starts from a fresh list, and subscribers learn the difference.
func TestFeedFindsItsWayAfterCompaction(t *testing.T) {
	db := registrytest.Store(t)
	r := registrytest.Make(registry.Config{Store: db, Kinds: builtinKinds})
	c := r.Client()
	registrytest.Create(t, r, configMap("stays"))
	changed := registrytest.Create(t, r, configMap("changes"))
	registrytest.Create(t, r, configMap("goes"))
	var mu sync.Mutex
	var seen []string
	sub, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.Subscribe(sub, func(ch control.Change) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%t %t", ch.Old != nil, ch.New != nil))
	}, kube.ConfigMap)
	changed.Data["k"] = "v"
	if _, err := c.Update(ctx, changed, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, kube.ConfigMap, "default", "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	registrytest.Create(t, r, configMap("new"))
	compactAll(t, db)
	run, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(run) }()
	want := "default/changes default/new default/stays"
	eventually(t, want, func() bool { return names(c.List(kube.ConfigMap, "")) == want })
	eventually(t, "three changes delivered", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == 6 })
	mu.Lock()
	slices.Sort(seen[3:])
	if told := strings.Join(seen[3:], ", "); told != "false true, true false, true true" {
		t.Errorf("delivered %s", told)
	}
	mu.Unlock()
	registrytest.Create(t, r, configMap("later"))
	eventually(t, "the feed goes on", func() bool { _, ok := c.Get(kube.ConfigMap, "default", "later"); return ok })
	stop()
	if err := <-done; err != context.Canceled {
		t.Errorf("ended with %v", err)
	}
}

// The hub keeps a bounded number of Events, also over a restart.
func TestOldEventsGo(t *testing.T) {
	db := registrytest.Store(t)
	before := registrytest.Start(t, registry.Config{Store: db})
	for i := range 30 {
		registrytest.Create(t, before, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("e%02d", i)},
			InvolvedObject: corev1.ObjectReference{Namespace: "default", Kind: "Pod", Name: "p"}})
	}
	kinds := builtin.New()
	events, _ := kinds.Lookup(kube.Event)
	events.TTL.MaxObjects = 20
	r := registrytest.Start(t, registry.Config{Store: db, Kinds: kinds})
	count := func() int {
		list, err := r.List(ctx, registrytest.Target(t, kube.Event, "", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	eventually(t, "18 events", func() bool { return count() == 18 })
	for i := range 3 {
		registrytest.Create(t, r, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("late%d", i)},
			InvolvedObject: corev1.ObjectReference{Namespace: "default", Kind: "Pod", Name: "p"}})
	}
	eventually(t, "18 events again", func() bool { return count() == 18 })
	if _, err := r.Get(ctx, registrytest.Target(t, kube.Event, "default", "late2"), nil); err != nil {
		t.Errorf("the newest Event: %v", err)
	}
}

package quota

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func kinds(gr schema.GroupResource) (kube.GVK, bool) {
	gvk, ok := map[schema.GroupResource]kube.GVK{
		corev1.Resource("pods"): kube.Pod, corev1.Resource("services"): kube.Service, corev1.Resource("configmaps"): kube.ConfigMap,
	}[gr]
	return gvk, ok
}

func newQuota(hard corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "q", UID: "q"},
		Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}
}

func withUID(p *corev1.Pod) *corev1.Pod {
	p.UID = types.UID("uid-" + p.Name)
	return p
}

// A tally has what exists when it begins, and follows what comes, changes, ends and goes.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(list("pods", "5", "count/pods", "9", "requests.cpu", "2", "configmaps", "3", "count/widgets.example.com", "1"))
		c := controltest.New(t, q, withUID(pod("a", list("cpu", "100m"), nil)), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "m"}})
		l := NewLedger(c, kinds)
		defer l.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
		woken := 0
		l.Notify(func(name types.NamespacedName) {
			if name.String() != "ns/q" {
				t.Errorf("%s has changed", name)
			}
			woken++
		})
		want := func(s string) {
			t.Helper()
			synctest.Wait()
			if got := Text(l.Used(q)); got != s {
				t.Errorf("used %s, want %s", got, s)
			}
		}
		want("configmaps=0,count/pods=1,pods=1,requests.cpu=100m")
		c.Put(withUID(pod("b", list("cpu", "300m"), nil)))
		c.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"}})
		want("configmaps=1,count/pods=2,pods=2,requests.cpu=400m")
		c.Put(withUID(pod("a", list("cpu", "100m"), nil, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })))
		want("configmaps=1,count/pods=2,pods=1,requests.cpu=300m")
		c.Remove(kube.Pod, "ns", "a")
		want("configmaps=1,count/pods=1,pods=1,requests.cpu=300m")
		if woken < 4 {
			t.Errorf("woken %d times", woken)
		}

		up := q.DeepCopy()
		up.Spec.Hard = list("services", "1")
		q = up
		c.Put(q)
		want("services=0")
		l.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
		before := woken
		c.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}})
		synctest.Wait()
		if woken != before {
			t.Error("a forgotten tally still counts")
		}
	})
}

// A pod that its node does not let go stops counting when its time is over, and is not counted twice when it goes at last.
func TestStuckPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(list("pods", "5", "count/pods", "9"))
		c := controltest.New(t, q, withUID(pod("a", nil, nil)), withUID(pod("b", nil, nil)))
		l := NewLedger(c, kinds)
		defer l.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
		want := func(s string) {
			t.Helper()
			synctest.Wait()
			if got := Text(l.Used(q)); got != s {
				t.Errorf("used %s, want %s", got, s)
			}
		}
		want("count/pods=2,pods=2")
		grace, at := int64(30), metav1.NewTime(time.Now().Add(30*time.Second))
		going := withUID(pod("a", nil, nil, func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds, p.Finalizers = &at, &grace, []string{"example.com/wait"}
		}))
		c.Put(going)
		time.Sleep(50 * time.Second)
		want("count/pods=2,pods=2")
		time.Sleep(11 * time.Second)
		want("count/pods=2,pods=1")
		again := going.DeepCopy()
		again.Labels = map[string]string{"seen": "again"}
		c.Put(again)
		want("count/pods=2,pods=1")
		c.Remove(kube.Pod, "ns", "a")
		want("count/pods=1,pods=1")
	})
}

func create(p *corev1.Pod) Write {
	return Write{Resource: corev1.Resource("pods"), GVK: kube.Pod, New: withUID(p)}
}

// What is reserved counts until the feed shows the object, or until the write has ended without one. Another write that lacks it
// waits for that before it is refused.
func TestReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(list("pods", "1"))
		c := controltest.New(t, q)
		l := NewLedger(c, kinds)
		defer l.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
		try := func(ctx context.Context, w Write) error { return l.Reserve(ctx, []*corev1.ResourceQuota{q}, w) }
		const full = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"

		failing, fail := context.WithCancel(t.Context())
		if err := try(failing, create(pod("a", nil, nil))); err != nil {
			t.Fatal(err)
		}
		dry := create(pod("d", nil, nil))
		dry.DryRun = true
		if err := try(t.Context(), dry); err == nil || err.Error() != full {
			t.Errorf("beside a write that does not end: %v", err)
		}
		begin := time.Now()
		go func() {
			time.Sleep(300 * time.Millisecond)
			fail()
		}()
		stored, end := context.WithCancel(t.Context())
		if err := try(stored, create(pod("b", nil, nil))); err != nil || time.Since(begin) < 300*time.Millisecond {
			t.Errorf("after the other write has failed: %v, after %s", err, time.Since(begin))
		}
		if err := try(t.Context(), dry); err == nil {
			t.Error("two fit")
		}
		c.Put(withUID(pod("b", nil, nil)))
		end()
		begin = time.Now()
		synctest.Wait()
		var refused *Refusal
		if err := try(t.Context(), create(pod("c", nil, nil))); !errors.As(err, &refused) || err.Error() != full || time.Since(begin) > 0 {
			t.Errorf("beside what is stored: %v, after %s", err, time.Since(begin))
		}
		c.Remove(kube.Pod, "ns", "b")
		synctest.Wait()
		if err := try(t.Context(), dry); err != nil {
			t.Errorf("room that a deletion has made: %v", err)
		}
		if err := try(t.Context(), create(pod("e", nil, nil))); err != nil {
			t.Errorf("a dry run has taken room: %v", err)
		}
		time.Sleep(reserveTime + time.Second)
		if err := try(t.Context(), create(pod("f", nil, nil))); err != nil {
			t.Errorf("a reservation of a write that never ends outlives its time: %v", err)
		}
	})
}

// What an object lacks for one quota is said before what it would exceed of another, whatever their order.
func TestMissingComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full, cpu := newQuota(list("pods", "0")), newQuota(list("requests.cpu", "1"))
		cpu.Name = "r"
		l := NewLedger(controltest.New(t, full, cpu), kinds)
		for _, q := range []string{"q", "r"} {
			defer l.Forget(types.NamespacedName{Namespace: "ns", Name: q})
		}
		err := l.Reserve(t.Context(), []*corev1.ResourceQuota{full, cpu}, create(pod("a", nil, nil)))
		if err == nil || !strings.HasPrefix(err.Error(), "failed quota: r: must specify requests.cpu for: ") {
			t.Errorf("%v", err)
		}
	})
}

// An update takes what it adds.
func TestUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(list("services.nodeports", "2"))
		svc := func(ports int) *corev1.Service {
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "s"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: make([]corev1.ServicePort, ports)}}
			return s
		}
		c := controltest.New(t, q, svc(1))
		l := NewLedger(c, kinds)
		defer l.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
		for ports, want := range map[int]string{1: "", 2: "", 3: "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, limited: services.nodeports=2"} {
			ctx, end := context.WithCancel(t.Context())
			err := l.Reserve(ctx, []*corev1.ResourceQuota{q}, Write{Resource: corev1.Resource("services"), GVK: kube.Service, New: svc(ports), Old: svc(1)})
			end()
			synctest.Wait()
			if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
				t.Errorf("%d ports: %s, want %s", ports, got, want)
			}
		}
	})
}

// step is one thing that happens to a pod, and how long nothing happens after it.
type step struct{ pod, what, seconds int }

// happens does what steps say to pods of a namespace, and returns the tally of a quota that has followed all of it, and of one that
// begins afterwards.
func happens(t *testing.T, steps []step) (followed, recounted string) {
	q := newQuota(list("pods", "50", "count/pods", "50", "requests.cpu", "50"), corev1.ResourceQuotaScopeNotTerminating)
	c := controltest.New(t, q)
	l, other := NewLedger(c, kinds), NewLedger(c, kinds)
	l.Used(q)
	for _, s := range steps {
		name := fmt.Sprint("p", s.pod)
		p, ok := control.Get[*corev1.Pod](c, kube.Pod, "ns", name)
		switch {
		case s.what == 0 && ok:
			c.Remove(kube.Pod, "ns", name)
		case !ok:
			c.Put(withUID(pod(name, list("cpu", fmt.Sprint(s.what)), nil)))
		default:
			p = p.DeepCopy()
			now, grace := metav1.Now(), int64(s.what)
			switch s.what {
			case 1:
				p.Status.Phase = corev1.PodFailed
			case 2:
				p.Spec.ActiveDeadlineSeconds = &grace
			case 3:
				p.Spec.ActiveDeadlineSeconds = nil
			case 4:
				p.Labels = map[string]string{"a": fmt.Sprint(len(p.Labels["a"]))}
			case 5:
				if p.DeletionTimestamp == nil {
					p.DeletionTimestamp, p.DeletionGracePeriodSeconds, p.Finalizers = &now, &grace, []string{"example.com/wait"}
				}
			}
			c.Put(p)
		}
		time.Sleep(time.Duration(s.seconds) * time.Second)
	}
	synctest.Wait()
	followed, recounted = Text(l.Used(q)), Text(other.Used(q))
	l.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
	other.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
	return followed, recounted
}

// Whatever happens to pods in whatever order, the tally is what a recount gives.
func TestTallyIsARecount(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := make([]step, rapid.IntRange(1, 40).Draw(r, "steps"))
		for i := range steps {
			steps[i] = step{rapid.IntRange(0, 4).Draw(r, "pod"), rapid.IntRange(0, 5).Draw(r, "what"), rapid.IntRange(0, 4).Draw(r, "seconds")}
		}
		var followed, recounted string
		synctest.Test(t, func(t *testing.T) { followed, recounted = happens(t, steps) })
		if followed != recounted {
			r.Errorf("used %s, a recount gives %s", followed, recounted)
		}
	})
}

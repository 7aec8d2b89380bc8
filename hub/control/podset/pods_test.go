package podset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// world is a client whose changes of pods go through Keys, as in a loop.
type world struct {
	*testing.T
	c    *controltest.Client
	ev   *controltest.Events
	pods *Pods[*appsv1.ReplicaSet]

	mu   sync.Mutex
	keys []string
}

// in runs f in a world with these objects.
func in(t *testing.T, objs []kube.Object, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, c: controltest.New(t, objs...), ev: &controltest.Events{}}
		w.pods = New(Config[*appsv1.ReplicaSet]{Client: w.c, Events: w.ev, Kind: kube.ReplicaSet,
			Selector: func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.Spec.Selector }})
		w.c.Subscribe(t.Context(), func(ch control.Change) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, k := range w.pods.Keys(ch) {
				w.keys = append(w.keys, k.String())
			}
		}, kube.Pod)
		f(w)
	})
}

// woken returns the owners that came up since the last call.
func (w *world) woken() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.keys)
	out := strings.Join(slices.Compact(w.keys), " ")
	w.keys = nil
	return out
}

// settled reports whether a loop would call Reconcile now.
func (w *world) settled() bool {
	synctest.Wait()
	ctx, cancel := context.WithTimeout(w.Context(), time.Nanosecond)
	defer cancel()
	return w.c.CatchUp(ctx) == nil
}

func (w *world) owner(name string) *appsv1.ReplicaSet {
	rs, ok := control.Get[*appsv1.ReplicaSet](w.c, kube.ReplicaSet, "default", name)
	if !ok {
		w.Fatalf("no owner %s", name)
	}
	return rs
}

// claim is what Claim finds, by names: "active a b; ending c; ended d".
func (w *world) claim(owner *appsv1.ReplicaSet) string {
	w.Helper()
	synctest.Wait()
	got, err := w.pods.Claim(w.Context(), owner)
	if err != nil {
		w.Fatal(err)
	}
	names := func(pods []*corev1.Pod) (s string) {
		var all []string
		for _, p := range pods {
			all = append(all, " "+p.Name)
		}
		slices.Sort(all)
		return strings.Join(all, "")
	}
	return fmt.Sprintf("active%s; ending%s; ended%s", names(got.Active), names(got.Ending), names(got.Ended))
}

func (w *world) create(owner *appsv1.ReplicaSet, n int) error {
	return w.pods.Create(w.Context(), owner, n, time.Now(), func(int) *corev1.Pod { return FromTemplate(owner, kube.ReplicaSet, &owner.Spec.Template) })
}

func (w *world) stored(name string) *corev1.Pod {
	for _, o := range w.c.Stored(kube.Pod, "default") {
		if o.GetName() == name {
			return o.(*corev1.Pod)
		}
	}
	w.Fatalf("no pod %s", name)
	return nil
}

// owner selects and makes pods with label app.
func owner(name, app string) *appsv1.ReplicaSet {
	l := map[string]string{"app": app}
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}}}
}

// pod has label app, and of as its controller unless that is nil.
func pod(name, app string, of *appsv1.ReplicaSet, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": app}}}
	if of != nil {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(of, kube.ReplicaSet)}
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func ending(p *corev1.Pod)    { now := metav1.Now(); p.DeletionTimestamp = &now }
func failed(p *corev1.Pod)    { p.Status.Phase = corev1.PodFailed }
func elsewhere(p *corev1.Pod) { p.Namespace = "elsewhere" }

func TestKeysOfAPod(t *testing.T) {
	web, web2, db, everything := owner("web", "web"), owner("web2", "web"), owner("db", "db"), owner("everything", "")
	everything.Spec.Selector = &metav1.LabelSelector{}
	in(t, []kube.Object{web, web2, db, everything}, func(w *world) {
		step := func(what, want string) {
			w.Helper()
			if got := w.woken(); got != want {
				w.Errorf("%s: wakes %q, want %q", what, got, want)
			}
		}
		w.c.Put(pod("a", "web", web))
		step("an owned pod, its owner and nobody else whose selector matches", "default/web")
		w.c.Put(pod("b", "web", nil))
		step("an orphan, all that could adopt it; an empty selector adopts nothing", "default/web default/web2")
		w.c.Put(pod("c", "web", nil, elsewhere))
		step("an orphan of another namespace", "")
		w.c.Put(pod("d", "web", nil, func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Name: "web", UID: "job", Controller: new(true)}}
		}))
		step("a pod of another kind's", "")
		w.c.Put(pod("a", "db", nil))
		step("a pod that was let go, its old owner and the new candidates", "default/db default/web")
		w.c.Put(pod("a", "db", db))
		step("a pod that was adopted", "default/db")
		w.c.Remove(kube.Pod, "default", "a")
		step("a deleted pod", "default/db")
		w.c.Remove(kube.Pod, "default", "b")
		step("a deleted orphan", "")
	})
}

func TestClaim(t *testing.T) {
	web := owner("web", "web")
	former := owner("web", "web")
	former.UID = "uid-of-an-earlier-web"
	in(t, []kube.Object{web,
		pod("mine", "web", web), pod("strayed", "debug", web), pod("going", "web", web, ending), pod("dead", "web", web, failed),
		pod("dead-and-going", "web", web, failed, ending), pod("orphan", "web", nil), pod("dead-orphan", "web", nil, failed),
		pod("other-orphan", "db", nil), pod("far-orphan", "web", nil, elsewhere), pod("of-former", "web", former),
	}, func(w *world) {
		if got, want := w.claim(w.owner("web")), "active mine orphan; ending going; ended dead dead-and-going"; got != want {
			w.Errorf("claimed %q, want %q", got, want)
		}
		if !metav1.IsControlledBy(w.stored("orphan"), web) || metav1.GetControllerOf(w.stored("strayed")) != nil {
			w.Error("the orphan should be adopted, and the pod that strayed released")
		}
		if got := w.c.Writes(); len(got) != 2 {
			w.Errorf("writes %q, want one adoption and one release", got)
		}
		if w.claim(w.owner("web")); len(w.c.Writes()) != 0 {
			w.Error("a second claim should have nothing to write")
		}
	})
}

func TestOwnerThatIsDeletedClaimsNothingNew(t *testing.T) {
	web := owner("web", "web")
	now := metav1.Now()
	web.DeletionTimestamp, web.Finalizers = &now, []string{"wait"}
	in(t, []kube.Object{web, pod("mine", "web", web), pod("strayed", "debug", web), pod("orphan", "web", nil)}, func(w *world) {
		if got, want := w.claim(w.owner("web")), "active mine strayed; ending; ended"; got != want {
			w.Errorf("claimed %q, want %q", got, want)
		}
		if got := w.c.Writes(); len(got) != 0 {
			w.Errorf("writes %q", got)
		}
	})
}

func TestClaimNamesTheSelectorThatCannotBeRead(t *testing.T) {
	web := owner("web", "web")
	web.Spec.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}
	in(t, []kube.Object{web}, func(w *world) {
		if _, err := w.pods.Claim(w.Context(), web); err == nil || !strings.HasPrefix(err.Error(), "replicaset default/web: selector: ") {
			w.Errorf("error %v", err)
		}
	})
}

// TestCountsWhenTheCacheShowsItAll checks that after three creations and a deletion the owner's loop waits for exactly those.
func TestCountsWhenTheCacheShowsItAll(t *testing.T) {
	in(t, []kube.Object{owner("web", "web")}, func(w *world) {
		web := w.owner("web")
		w.c.Lag(true)
		if err := w.create(web, 3); err != nil {
			w.Fatal(err)
		}
		for range 3 {
			if w.settled() {
				w.Fatal("settled before the cache shows all three")
			}
			w.c.Step(1)
		}
		if !w.settled() || w.woken() != "default/web" {
			w.Fatal("not settled, or not woken, when the cache shows all three")
		}
		mine, _ := w.pods.Claim(w.Context(), web)
		if len(mine.Active) != 3 {
			w.Fatalf("%d pods are counted, want 3", len(mine.Active))
		}
		if err := w.pods.Delete(w.Context(), web, mine.Active[:1]); err != nil {
			w.Fatal(err)
		}
		if w.settled() {
			w.Fatal("settled before the cache shows the deletion")
		}
		if w.c.Step(1); !w.settled() {
			w.Fatal("not settled although the pod is gone")
		}
		if mine, _ := w.pods.Claim(w.Context(), web); len(mine.Active) != 2 {
			w.Fatalf("%d pods are counted, want 2", len(mine.Active))
		}
		if err := w.create(web, 1); err != nil || w.settled() {
			w.Fatalf("creation: %v", err)
		}
	})
}

// TestRefusalHoldsForTheOwner covers an owner with many pods: there is room for five pods of a thousand.
func TestRefusalHoldsForTheOwner(t *testing.T) {
	in(t, []kube.Object{owner("web", "web"), owner("db", "db")}, func(w *world) {
		var mu sync.Mutex
		room, asked := 5, 0
		w.c.Refuse = func(verb string, o kube.Object, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			asked++
			if room--; room < 0 {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("no room"))
			}
			return nil
		}
		web := w.owner("web")
		if err := w.create(web, 1000); !apierrors.IsForbidden(err) {
			w.Fatalf("error %v", err)
		}
		if asked > 1+2+4 || len(w.c.Stored(kube.Pod, "default")) != 5 {
			w.Errorf("asked for %d pods", asked)
		}
		asked = 0
		if err := w.create(web, 995); !apierrors.IsForbidden(err) || asked != 0 || w.pods.RefusedFor(web, time.Now()) != time.Second {
			w.Errorf("asked %d times while the refusal holds for %s: %v", asked, w.pods.RefusedFor(web, time.Now()), err)
		}
		if w.pods.RefusedFor(w.owner("db"), time.Now()) != 0 {
			w.Error("the refusal should not hold for others")
		}
		room = 2
		changed := web.DeepCopy()
		changed.Generation++
		if err := w.create(changed, 2); err != nil || w.pods.RefusedFor(changed, time.Now()) != 0 {
			w.Errorf("a changed spec is tried at once: %v", err)
		}
		var made, refused int
		for _, e := range w.ev.Take() {
			switch {
			case strings.HasPrefix(e, "Normal SuccessfulCreate ReplicaSet/web: Created pod: web-"):
				made++
			case strings.HasPrefix(e, "Warning FailedCreate ReplicaSet/web: Error creating: "):
				refused++
			default:
				w.Errorf("event %q", e)
			}
		}
		if made != 7 || refused == 0 {
			w.Errorf("%d events of pods made, %d of refusals", made, refused)
		}
	})
}

func TestNothingIsMadeWhereTheNamespaceEnds(t *testing.T) {
	in(t, []kube.Object{owner("web", "web")}, func(w *world) {
		w.c.Refuse = func(string, kube.Object, string) error {
			err := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-1", errors.New("namespace default is being terminated"))
			err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
			return err
		}
		web := w.owner("web")
		if err := w.create(web, 3); err != nil || w.pods.RefusedFor(web, time.Now()) != 0 || len(w.ev.Take()) != 0 {
			w.Errorf("all of this is about to go: no error (%v), no refusal, no event", err)
		}
	})
}

func TestDelete(t *testing.T) {
	web := owner("web", "web")
	in(t, []kube.Object{web, pod("a", "web", web), pod("b", "web", web), pod("c", "web", web), pod("d", "web", web)}, func(w *world) {
		all := control.List[*corev1.Pod](w.c, kube.Pod, "default")
		w.c.Lag(true)
		w.c.Remove(kube.Pod, "default", "a") // gone
		w.c.Remove(kube.Pod, "default", "b") // and made again, by another client
		w.c.Put(pod("b", "web", nil))
		w.c.Refuse = func(_ string, o kube.Object, _ string) error {
			if o.GetName() == "c" {
				return errors.New("disk on fire")
			}
			return nil
		}
		if err := w.pods.Delete(w.Context(), web, all); err == nil || err.Error() != "disk on fire" {
			w.Errorf("error %v", err)
		}
		var left []string
		for _, o := range w.c.Stored(kube.Pod, "default") {
			left = append(left, o.GetName())
		}
		if fmt.Sprint(left) != "[b c]" {
			w.Errorf("left are %v, want the other b, and c", left)
		}
		got := w.ev.Take()
		slices.Sort(got)
		if want := []string{"Normal SuccessfulDelete ReplicaSet/web: Deleted pod: d", "Warning FailedDelete ReplicaSet/web: Error deleting: disk on fire"}; !slices.Equal(got, want) {
			w.Errorf("events %q, want %q", got, want)
		}
		if w.settled() {
			w.Error("settled before the cache shows that d is gone")
		}
	})
}

func TestFromTemplate(t *testing.T) {
	web := owner(strings.Repeat("w", 253), "web")
	web.Spec.Template.Finalizers = []string{"example.com/wait"}
	p := FromTemplate(web, kube.ReplicaSet, &web.Spec.Template)
	if len(p.GenerateName)+5 > 253 || !strings.HasSuffix(p.GenerateName, "-") || !metav1.IsControlledBy(p, web) || p.Namespace != "default" ||
		p.Labels["app"] != "web" || len(p.Finalizers) != 1 || !*p.OwnerReferences[0].BlockOwnerDeletion {
		t.Errorf("pod %+v", p.ObjectMeta)
	}
	p.Labels["app"] = "changed"
	if web.Spec.Template.Labels["app"] != "web" {
		t.Error("the pod shares its labels with the template")
	}
}

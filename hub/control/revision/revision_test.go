package revision

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func set(image string) *appsv1.DaemonSet {
	l := map[string]string{"app": "agent"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent", UID: "owner", Annotations: map[string]string{"kubernetes.io/change-cause": image}},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: l},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}}},
	}
}

type world struct {
	t *testing.T
	c *controltest.Client
	h *History[*appsv1.DaemonSet]
}

func newWorld(t *testing.T, objs ...kube.Object) *world {
	w := &world{t: t, c: controltest.New(t, objs...)}
	w.h = New(Config[*appsv1.DaemonSet]{Client: w.c, Kind: kube.DaemonSet, HashLabel: "controller-revision-hash",
		Selector: func(ds *appsv1.DaemonSet) *metav1.LabelSelector { return ds.Spec.Selector },
		Template: func(ds *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &ds.Spec.Template }})
	w.c.Subscribe(t.Context(), func(ch control.Change) { w.h.Keys(ch) }, kube.ControllerRevision)
	synctest.Wait()
	return w
}

// sync makes image the template, and returns "number image, ..." of all revisions with * at the current one.
func (w *world) sync(image string, collisions *int32) (Revisions, string) {
	w.t.Helper()
	ds := w.c.Put(set(image)).(*appsv1.DaemonSet)
	r, err := w.h.Sync(w.t.Context(), ds, collisions)
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	var parts []string
	for _, cr := range r.All {
		t, err := Template(cr)
		if err != nil {
			w.t.Fatal(err)
		}
		mark := ""
		if cr == r.Current {
			mark = "*"
		}
		parts = append(parts, fmt.Sprintf("%d %s%s", cr.Revision, t.Spec.Containers[0].Image, mark))
	}
	return r, strings.Join(parts, ", ")
}

// Each template has one revision; one that comes back becomes the latest, and nothing is written while nothing changes.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, step := range []struct{ image, want string }{
			{"v1", "1 v1*"}, {"v1", "1 v1*"}, {"v2", "1 v1, 2 v2*"}, {"v3", "1 v1, 2 v2, 3 v3*"}, {"v1", "2 v2, 3 v3, 4 v1*"},
		} {
			if _, got := w.sync(step.image, nil); got != step.want {
				t.Errorf("after %s: %s, want %s", step.image, got, step.want)
			}
		}
		w.c.Writes()
		r, _ := w.sync("v1", nil)
		if got := w.c.Writes(); len(got) > 0 {
			t.Errorf("writes %q", got)
		}
		cr := r.Current
		if cr.Name != "agent-"+cr.Labels["controller-revision-hash"] || cr.Labels["app"] != "agent" || cr.Annotations["kubernetes.io/change-cause"] != "v1" {
			t.Errorf("metadata %+v", cr.ObjectMeta)
		}
		one := int32(1)
		if err := w.h.Truncate(t.Context(), r, &one, func(*appsv1.ControllerRevision) bool { return false }); err != nil {
			t.Fatal(err)
		}
		if _, got := w.sync("v1", nil); got != "3 v3, 4 v1*" {
			t.Errorf("after removing all but one: %s", got)
		}
	})
}

// The name that a revision would have belongs to another owner, or stores another template: the count of collisions gives it another.
func TestCollision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first, _ := w.sync("v1", nil)
		other := first.Current.DeepCopy()
		other.OwnerReferences[0].UID = "another"
		w.c.Put(other)
		synctest.Wait()
		r, got := w.sync("v1", nil)
		if got != "1 v1*" || r.Collisions == nil || *r.Collisions != 1 || r.Current.Name == other.Name {
			t.Errorf("%s, collisions %v, name %s beside %s", got, r.Collisions, r.Current.Name, other.Name)
		}
		if again, _ := w.sync("v1", r.Collisions); again.Current.UID != r.Current.UID || *again.Collisions != 1 {
			t.Errorf("not found again: %+v", again)
		}
	})
}

// A revision without an owner that matches is adopted, however its writer has ordered the fields: nothing is made anew.
func TestAdoptsEqualRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orphan := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "restored", Labels: map[string]string{"app": "agent"}}, Revision: 7}
		orphan.Data.Raw = []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"v1"}]},"metadata":{"labels":{"app":"agent"}},"$patch":"replace"}}}`)
		w := newWorld(t, orphan)
		r, got := w.sync("v1", nil)
		if got != "7 v1*" || !metav1.IsControlledBy(r.Current, set("v1")) {
			t.Errorf("%s, owners %v", got, r.Current.OwnerReferences)
		}
	})
}

// The stored form is the one that upstream's tools compare and kubectl sends back: a patch that replaces the template, fields in order.
func TestDataIsUpstreams(t *testing.T) {
	b, err := Data(&set("v1").Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"agent"}},"spec":{"containers":[{"image":"v1","name":"c","resources":{}}]}}}}`
	if string(b) != want {
		t.Errorf("data\n%s, want\n%s", b, want)
	}
}

func TestNamesFit(t *testing.T) {
	if n := name(strings.Repeat("a", 253), "7c9f8"); len(n) != 253 || !strings.HasSuffix(n, "-7c9f8") {
		t.Errorf("%d characters: %s", len(n), n)
	}
}

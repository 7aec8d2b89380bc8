package namespace

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

var builtin = []control.StoredKind{
	{GVK: kube.ConfigMap, Plural: "configmaps", Namespaced: true}, {GVK: kube.Secret, Plural: "secrets", Namespaced: true},
	{GVK: kube.Event, Plural: "events", Namespaced: true, Expires: true}, {GVK: kube.Pod, Plural: "pods", Namespaced: true},
	{GVK: kube.Namespace, Plural: "namespaces"},
}

func TestNamespaceIsEmptiedThenGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "x", Name: name} }
		held := &corev1.Secret{ObjectMeta: meta("held")}
		held.Finalizers = []string{"example.org/wait"}
		running := &corev1.Pod{ObjectMeta: meta("running"), Spec: corev1.PodSpec{NodeName: "n"}}
		c := controltest.New(t, &corev1.ConfigMap{ObjectMeta: meta("a")}, held, running, &corev1.Event{ObjectMeta: meta("e")},
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "a"}})
		for _, ns := range []string{"x", "y"} {
			if _, err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
				t.Fatal(err)
			}
		}
		ctl := New(Config{Client: c, Kinds: controltest.NewKinds(builtin...)})
		go func() { _ = ctl.Run(t.Context()) }()
		synctest.Wait()
		c.Writes()
		if err := c.Delete(t.Context(), kube.Namespace, "", "x", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		message := func(want corev1.NamespaceConditionType) string {
			ns, ok := control.Get[*corev1.Namespace](c, kube.Namespace, "", "x")
			if !ok {
				return "gone"
			}
			for _, cond := range ns.Status.Conditions {
				if cond.Type == want {
					return string(cond.Status) + " " + cond.Message
				}
			}
			return "no condition"
		}
		if got := message(corev1.NamespaceContentRemaining); got != "True Some resources are remaining: pods. has 1 resource instances" {
			t.Errorf("while the pod stops: %s", got)
		}
		if _, ok := c.Get(kube.ConfigMap, "x", "a"); !ok {
			t.Error("the rest went before the pod")
		}
		c.Remove(kube.Pod, "x", "running")
		synctest.Wait()
		if got := message(corev1.NamespaceFinalizersRemaining); got != "True Some content in the namespace has finalizers remaining: example.org/wait in 1 resource instances" {
			t.Errorf("while the secret is held: %s", got)
		}
		s, _ := control.Get[*corev1.Secret](c, kube.Secret, "x", "held")
		s = s.DeepCopy()
		s.Finalizers = nil
		if _, err := c.Update(t.Context(), s, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := message(corev1.NamespaceContentRemaining); got != "gone" {
			t.Errorf("at the end: %s", got)
		}
		if e := c.List(kube.Event, "x"); len(e) != 0 {
			t.Error("events are left")
		}
		if _, ok := c.Get(kube.ConfigMap, "y", "a"); !ok {
			t.Error("another namespace lost its content")
		}
		for _, w := range c.Writes() {
			if strings.Contains(w, " y/") {
				t.Errorf("wrote %s", w)
			}
		}
	})
}

// A namespace that is ending waits neither for a kind that goes, nor forgets one that comes.
func TestNamespaceFollowsTheKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "held", Finalizers: []string{"example.org/wait"}}}
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "l"}}
		c := controltest.New(t, held, lease)
		if _, err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}); err != nil {
			t.Fatal(err)
		}
		leases := control.StoredKind{GVK: kube.Lease, Plural: "leases", Namespaced: true}
		without := slices.DeleteFunc(slices.Clone(builtin), func(k control.StoredKind) bool { return k.GVK == kube.Secret })
		kinds := controltest.NewKinds(builtin...)
		ctl := New(Config{Client: c, Kinds: kinds})
		go func() { _ = ctl.Run(t.Context()) }()
		synctest.Wait()
		if err := c.Delete(t.Context(), kube.Namespace, "", "x", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		kinds.Set(append(slices.Clone(builtin), leases)...)
		synctest.Wait()
		if _, ok := c.Get(kube.Lease, "x", "l"); ok {
			t.Error("an object of a kind that came is left")
		}
		if _, ok := c.Get(kube.Namespace, "", "x"); !ok {
			t.Fatal("the namespace went before its Secret")
		}
		kinds.Set(without...)
		synctest.Wait()
		if _, ok := c.Get(kube.Namespace, "", "x"); ok {
			t.Error("the namespace waits for a Secret, and Secrets are gone")
		}
	})
}

package gc

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// cm is a ConfigMap; refs are "name" (blocking), "name?" (not blocking), "name!" (of another uid), "Node/name".
func cm(name string, refs ...string) *corev1.ConfigMap {
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	for _, r := range refs {
		kind, block := "ConfigMap", true
		if n, ok := strings.CutPrefix(r, "Node/"); ok {
			kind, r = "Node", n
		}
		if n, ok := strings.CutPrefix(r, "Mystery/"); ok {
			kind, r = "Mystery", n
		}
		uid := types.UID("uid-" + strings.TrimRight(r, "?!"))
		if strings.HasSuffix(r, "!") {
			uid = "other"
		}
		if strings.HasSuffix(r, "?") {
			block = false
		}
		o.OwnerReferences = append(o.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: strings.TrimRight(r, "?!"), UID: uid, BlockOwnerDeletion: &block})
	}
	return o
}

var builtin = []control.StoredKind{{GVK: kube.ConfigMap, Namespaced: true}, {GVK: kube.Node}, {GVK: kube.Pod, Namespaced: true}}

func start(t *testing.T, objs ...kube.Object) *controltest.Client {
	c := controltest.New(t, objs...)
	ctl := New(Config{Client: c, Events: &controltest.Events{}, Kinds: controltest.NewKinds(builtin...)})
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
	return c
}

// left lists what is there: name, [owners], and a * when it is being deleted.
func left(c *controltest.Client) string {
	var out []string
	for _, gvk := range []kube.GVK{kube.ConfigMap, kube.Node, kube.Pod} {
		for _, o := range c.Stored(gvk, "") {
			s := o.GetName()
			if o.GetDeletionTimestamp() != nil {
				s += "*"
			}
			var refs []string
			for _, r := range o.GetOwnerReferences() {
				refs = append(refs, r.Name)
			}
			if len(refs) > 0 {
				s += fmt.Sprint(refs)
			}
			out = append(out, s)
		}
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

// settle waits until nothing is left to do; conflicts come again within moments.
func settle() {
	for range 5 {
		synctest.Wait()
		time.Sleep(time.Second)
	}
}

func TestCascade(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "uid-n"}}
	held := cm("held", "a")
	held.Finalizers = []string{"example.org/hold"}
	family := []kube.Object{cm("a"), cm("b", "a"), cm("c", "b"), cm("d", "b?"), cm("z")}
	tests := []struct {
		name   string
		objs   []kube.Object
		remove string // "" for nothing
		policy metav1.DeletionPropagation
		want   string
	}{
		{"background", family, "a", metav1.DeletePropagationBackground, "z"},
		{"foreground", family, "a", metav1.DeletePropagationForeground, "z"},
		{"orphan", family, "a", metav1.DeletePropagationOrphan, "b c[b] d[b] z"},
		{"foreground waits for a finalizer", []kube.Object{cm("a"), held}, "a", metav1.DeletePropagationForeground, "a* held*[a]"},
		{"foreground does not wait for those that do not block", []kube.Object{cm("a"), func() kube.Object {
			h := held.DeepCopy()
			h.OwnerReferences[0].BlockOwnerDeletion = ptr.To(false)
			return h
		}()},
			"a", metav1.DeletePropagationForeground, "held*[a]"},
		{"owner was never there", []kube.Object{cm("b", "a")}, "", "", ""},
		{"owner has another uid", []kube.Object{cm("a"), cm("b", "a!")}, "", "", "a"},
		{"one of two owners goes", []kube.Object{cm("a"), cm("b"), cm("c", "a", "b")}, "a", metav1.DeletePropagationBackground, "b c[b]"},
		{"one of two owners goes in the foreground", []kube.Object{cm("a"), cm("b"), cm("c", "a", "b")}, "a", metav1.DeletePropagationForeground, "b c[b]"},
		{"cluster-scoped owner", []kube.Object{node, cm("a", "Node/n")}, "", "", "a[n] n"},
		{"cluster-scoped owner is absent", []kube.Object{cm("a", "Node/n")}, "", "", ""},
		{"kind that is not served keeps", []kube.Object{cm("a", "Mystery/m")}, "", "", "a[m]"},
		{"circle", []kube.Object{cm("a", "c"), cm("b", "a"), cm("c", "b")}, "a", metav1.DeletePropagationForeground, ""},
		{"circle in the background", []kube.Object{cm("a", "b"), cm("b", "a")}, "a", metav1.DeletePropagationBackground, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, tt.objs...)
				if tt.remove != "" {
					if err := c.Delete(t.Context(), kube.ConfigMap, "default", tt.remove, metav1.DeleteOptions{PropagationPolicy: &tt.policy}); err != nil {
						t.Fatal(err)
					}
				}
				settle()
				if got := left(c); got != tt.want {
					t.Errorf("left: %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// Objects that wait for each other go together, also when each was deleted by itself, or is its own owner. What they wait for besides still counts.
func TestCirclesThatAreDeletedAtOnce(t *testing.T) {
	held := cm("held", "b")
	held.Finalizers = []string{"example.org/hold"}
	for _, tt := range []struct {
		name string
		objs []kube.Object
		want string
	}{
		{"its own owner", []kube.Object{cm("a", "a")}, ""},
		{"two", []kube.Object{cm("a", "b"), cm("b", "a")}, ""},
		{"three, and one that hangs on them", []kube.Object{cm("a", "c"), cm("b", "a"), cm("c", "b"), cm("d", "b")}, ""},
		{"two, and one that stays for a while", []kube.Object{cm("a", "b"), cm("b", "a"), held}, "b*[a] held*[b]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, o := range tt.objs {
					if o.GetName() < "d" { // as if the hub had been stopped between the deletions and what follows from them
						o.SetFinalizers([]string{metav1.FinalizerDeleteDependents})
						o.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
					}
				}
				c := start(t, tt.objs...)
				settle()
				if got := left(c); got != tt.want {
					t.Errorf("left: %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestClusterScopedObjectCannotBeOwnedByNamespaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", OwnerReferences: cm("x", "a").OwnerReferences}}
		c := start(t, n)
		settle()
		if got := left(c); got != "n[a]" {
			t.Errorf("left: %q; an object must not go because of a reference that means nothing", got)
		}
	})
}

func TestForegroundEndsWhenTheLastDependentDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", OwnerReferences: cm("x", "a").OwnerReferences},
			Spec: corev1.PodSpec{NodeName: "n"}}
		c := start(t, cm("a"), pod)
		if err := c.Delete(t.Context(), kube.ConfigMap, "default", "a", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := left(c); got != "a* p*[a]" {
			t.Fatalf("while the pod stops: %q", got)
		}
		if err := c.Delete(t.Context(), kube.Pod, "default", "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := left(c); got != "" {
			t.Errorf("at the end: %q", got)
		}
		if n := len(c.Writes()); n > 10 {
			t.Errorf("%d writes", n)
		}
	})
}

func TestUnrelatedChangesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, cm("a"), cm("b", "a"))
		b, _ := control.Get[*corev1.ConfigMap](c, kube.ConfigMap, "default", "b")
		b = b.DeepCopy()
		b.Data = map[string]string{"x": "y"}
		c.Put(b)
		settle()
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("wrote %q", w)
		}
	})
}

func TestJudge(t *testing.T) {
	refs := []metav1.OwnerReference{{UID: "1"}, {UID: "2"}}
	tests := []struct {
		a, b ownerState
		want verdict
		drop []types.UID
	}{
		{ownerThere, ownerThere, leave, nil},
		{ownerThere, ownerAbsent, releaseRefs, []types.UID{"2"}},
		{ownerWaiting, ownerThere, releaseRefs, []types.UID{"1"}},
		{ownerAbsent, ownerAbsent, remove, nil},
		{ownerAbsent, ownerWaiting, remove, nil},
		{ownerUnknown, ownerAbsent, releaseRefs, []types.UID{"2"}},
		{ownerUnknown, ownerUnknown, leave, nil},
	}
	for _, tt := range tests {
		v, drop, _ := judge(refs, []ownerState{tt.a, tt.b})
		if v != tt.want || !slices.Equal(drop, tt.drop) {
			t.Errorf("judge(%v, %v) = %v, drop %v; want %v, %v", tt.a, tt.b, v, drop, tt.want, tt.drop)
		}
	}
}

// Secrets are a kind that comes and goes here.
var secrets = control.StoredKind{GVK: kube.Secret, Namespaced: true}

func secret(name string, owners ...string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: cm(name, owners...).ObjectMeta}
}

// An owner of a kind that is not served is one of which nothing is known; once it is served, the owner is there or not.
func TestOwnersOfKindsThatCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owned := func(name, owner string) *corev1.ConfigMap {
			o := cm(name, owner)
			o.OwnerReferences[0].Kind = "Secret"
			return o
		}
		c := controltest.New(t, secret("s"), owned("a", "s"), owned("b", "gone"))
		kinds := controltest.NewKinds(builtin...)
		ctl := New(Config{Client: c, Events: &controltest.Events{}, Kinds: kinds})
		go func() { _ = ctl.Run(t.Context()) }()
		settle()
		if got := left(c); got != "a[s] b[gone]" {
			t.Fatalf("while Secrets are not served: %q", got)
		}
		kinds.Set(append(slices.Clone(builtin), secrets)...)
		settle()
		if got := left(c); got != "a[s]" {
			t.Fatalf("once they are: %q", got)
		}
		kinds.Set(builtin...)
		settle()
		c.Remove(kube.Secret, "default", "s")
		settle()
		if got := left(c); got != "a[s]" {
			t.Fatalf("an owner whose kind is gone: %q", got)
		}
		kinds.Set(append(slices.Clone(builtin), secrets)...)
		settle()
		if got := left(c); got != "" {
			t.Errorf("at the end: %q", got)
		}
	})
}

// Dependents of a kind that goes hold up nobody; those of a kind that comes are found.
func TestDependentsOfKindsThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := secret("held", "a")
		held.Finalizers = []string{"example.org/hold"}
		c := controltest.New(t, cm("a"), held)
		kinds := controltest.NewKinds(append(slices.Clone(builtin), secrets)...)
		ctl := New(Config{Client: c, Events: &controltest.Events{}, Kinds: kinds})
		go func() { _ = ctl.Run(t.Context()) }()
		settle()
		if err := c.Delete(t.Context(), kube.ConfigMap, "default", "a", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := left(c); got != "a*" {
			t.Fatalf("while a Secret holds it: %q", got)
		}
		kinds.Set(builtin...)
		settle()
		if got := left(c); got != "" {
			t.Fatalf("after Secrets have gone: %q", got)
		}
		late := secret("late", "a")
		c.Put(late)
		kinds.Set(append(slices.Clone(builtin), secrets)...)
		settle()
		if _, ok := c.Get(kube.Secret, "default", "late"); ok {
			t.Error("a dependent of an owner that is gone stays when its kind comes")
		}
	})
}

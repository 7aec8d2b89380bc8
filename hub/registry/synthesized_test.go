package registry_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/objects/overlay"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

const leases = corev1.NamespaceNodeLease

// withLeases returns a registry that shows for each node a synthesized lease, whose holder is what holder returns.
func withLeases(t testing.TB, holder func(*corev1.Node) string) *registry.Registry {
	t.Helper()
	store, kinds := registrytest.Store(t), builtinKinds
	view := objects.New(objects.Config{Store: store, Kinds: kinds})
	lease, node := registrytest.Target(t, kube.Lease, "", "").Kind, registrytest.Target(t, kube.Node, "", "").Kind
	over, err := overlay.New(overlay.Config{Store: store, Objects: view}, overlay.Synthetic{
		Kind: lease, Namespace: leases, Source: node, Why: "the hub makes them",
		Build: func(o kube.Object) kube.Object {
			n := o.(*corev1.Node)
			h := holder(n)
			return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{UID: "lease-" + n.UID}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &h}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return registrytest.Start(t, registry.Config{Store: over, ReadOnly: over.ReadOnly, Kinds: kinds, Objects: view})
}

func newNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func newLease(ns, name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
}

func TestSynthesized(t *testing.T) {
	asked := atomic.Int64{}
	r := withLeases(t, func(*corev1.Node) string { return fmt.Sprint("asked ", asked.Add(1)) })
	registrytest.Create(t, r, newLease("default", "leader"))
	n := registrytest.Create(t, r, newNode("a"))
	registrytest.Create(t, r, newNode("ab"))
	all, mine, one := registrytest.Target(t, kube.Lease, "", ""), registrytest.Target(t, kube.Lease, leases, ""), registrytest.Target(t, kube.Lease, leases, "a")
	before := r.Client().List(kube.Lease, "")

	get := func() *coordinationv1.Lease {
		res, err := r.Get(ctx, one, nil)
		if err != nil {
			t.Fatal(err)
		}
		return registrytest.Decode[coordinationv1.Lease](t, res.JSON)
	}
	first, second := get(), get()
	if first.Kind != "Lease" || first.Namespace != leases || first.Name != "a" || first.ResourceVersion != n.ResourceVersion || first.UID != "lease-"+n.UID {
		t.Errorf("made %+v from %+v", first, n)
	}
	if *first.Spec.HolderIdentity == *second.Spec.HolderIdentity {
		t.Error("it was not made anew")
	}
	list := func(at resource.Target, opts metav1.ListOptions) string {
		res, err := r.List(ctx, at, &opts)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, raw := range res.Items {
			l := registrytest.Decode[coordinationv1.Lease](t, raw)
			names = append(names, l.Kind+" "+l.Namespace+"/"+l.Name)
		}
		return strings.Join(names, ", ")
	}
	for _, c := range []struct {
		at   resource.Target
		opts metav1.ListOptions
		want string
	}{
		{all, metav1.ListOptions{}, "Lease default/leader, Lease kube-node-lease/a, Lease kube-node-lease/ab"},
		{mine, metav1.ListOptions{}, "Lease kube-node-lease/a, Lease kube-node-lease/ab"},
		{mine, metav1.ListOptions{FieldSelector: "metadata.name=a"}, "Lease kube-node-lease/a"},
		{mine, metav1.ListOptions{FieldSelector: "metadata.name!=a"}, "Lease kube-node-lease/ab"},
		{all, metav1.ListOptions{FieldSelector: "metadata.name=a"}, "Lease kube-node-lease/a"},
		{all, metav1.ListOptions{FieldSelector: "metadata.namespace=" + leases}, "Lease kube-node-lease/a, Lease kube-node-lease/ab"},
		{mine, metav1.ListOptions{LabelSelector: "x=1"}, ""},
		{mine, metav1.ListOptions{LabelSelector: "!x"}, "Lease kube-node-lease/a, Lease kube-node-lease/ab"},
		{registrytest.Target(t, kube.Lease, "default", ""), metav1.ListOptions{}, "Lease default/leader"},
	} {
		if got := list(c.at, c.opts); got != c.want {
			t.Errorf("%s %+v: %s, want %s", c.at.Namespace, c.opts, got, c.want)
		}
	}

	w, err := r.Watch(ctx, mine, &metav1.ListOptions{ResourceVersion: n.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := r.Client().Delete(ctx, kube.Node, "", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for len(seen) < 2 {
		evs, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range evs {
			l := registrytest.Decode[coordinationv1.Lease](t, ev.JSON)
			seen = append(seen, fmt.Sprintf("%s %s %s/%s", ev.Type, l.Kind, l.Namespace, l.Name))
		}
	}
	if got, want := strings.Join(seen, ", "), fmt.Sprintf("%s Lease %s/ab, %s Lease %s/a", watch.Added, leases, watch.Deleted, leases); got != want {
		t.Errorf("watched %s, want %s", got, want)
	}
	_, err = r.Get(ctx, one, nil)
	registrytest.WantError(t, err, 404, `leases.coordination.k8s.io "a" not found`)
	if after := r.Client().List(kube.Lease, ""); len(after) != len(before) {
		t.Errorf("%d leases stored, before %d", len(after), len(before))
	}
}

// Nobody can write a synthesized object; all other objects of the kind are written as usual.
func TestSynthesizedIsNotWritten(t *testing.T) {
	r := withLeases(t, func(n *corev1.Node) string { return n.Name })
	registrytest.Create(t, r, newNode("a"))
	at := registrytest.Target(t, kube.Lease, leases, "a")
	body := func(name string) *coordinationv1.Lease { return newLease(leases, name) }
	coll := registrytest.Target(t, kube.Lease, leases, "")
	_, err := r.Create(ctx, coll, body("a"), nil)
	registrytest.WantError(t, err, 409, "already exists")
	_, err = r.Create(ctx, coll, body("b"), nil)
	registrytest.WantError(t, err, 403, "the hub makes them")
	_, err = r.Client().Create(ctx, body("b"))
	registrytest.WantError(t, err, 403, "the hub makes them")
	_, err = r.Update(ctx, at, body("a"), nil)
	registrytest.WantError(t, err, 403, "the hub makes them")
	_, err = r.Patch(ctx, at, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), nil)
	registrytest.WantError(t, err, 403, "the hub makes them")
	_, err = r.Delete(ctx, at, nil)
	registrytest.WantError(t, err, 403, "the hub makes them")
	_, err = r.DeleteCollection(ctx, coll, nil, nil)
	registrytest.WantError(t, err, 403, "the hub makes them")

	registrytest.Create(t, r, newLease("default", "leader"))
	if _, err := r.DeleteCollection(ctx, registrytest.Target(t, kube.Lease, "", ""), nil, nil); err != nil {
		t.Fatal(err)
	}
	if left := len(r.Client().List(kube.Lease, "")); left != 0 {
		t.Errorf("%d leases left", left)
	}
	if _, ok := r.Client().Get(kube.Node, "", "a"); !ok {
		t.Error("the node went with its lease")
	}
}

// TestSynthesizedListAndWatchAgree checks that lists, chunks and watches that cover synthesized and stored objects agree as all
// others do.
func TestSynthesizedListAndWatchAgree(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		r := withLeases(outer, func(n *corev1.Node) string { return n.Labels["x"] })
		namespace := rapid.SampledFrom([]string{"", leases}).Draw(t, "of namespace")
		all := registrytest.Target(outer, kube.Lease, namespace, "")
		sel := metav1.ListOptions{}
		history := map[string]state{}
		remember := func() string {
			res, err := r.List(ctx, all, &sel)
			if err != nil {
				t.Fatal(err)
			}
			history[res.ResourceVersion] = listed(t, res.Items)
			return res.ResourceVersion
		}
		for range rapid.IntRange(1, 15).Draw(t, "writes") {
			name := rapid.SampledFrom([]string{"a", "aa", "b"}).Draw(t, "name")
			gvk, ns := kube.Node, ""
			if rapid.Bool().Draw(t, "lease") {
				gvk, ns = kube.Lease, rapid.SampledFrom([]string{"core", "z"}).Draw(t, "namespace")
			}
			at := registrytest.Target(outer, gvk, ns, name)
			var err error
			switch rapid.SampledFrom([]string{"create", "patch", "delete"}).Draw(t, "verb") {
			case "create":
				var o kube.Object = newNode(name)
				if gvk == kube.Lease {
					o = newLease(ns, name)
				}
				_, err = r.Client().Create(ctx, o)
			case "patch":
				_, err = r.Patch(ctx, at, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"x":"%d"}}}`, rapid.IntRange(1, 3).Draw(t, "x")), nil)
			case "delete":
				_, err = r.Delete(ctx, at, nil)
			}
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			remember()
		}
		now := remember()
		for rv, at := range history {
			follow(t, r, all, rv, now, sel, at, history[now])
		}
		chunked(t, r, all, sel)
	})
}

package overlay_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/objects/overlay"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/storetest"
)

var kinds = builtin.New()

func kind(gvk kube.GVK) *resource.Kind {
	k, ok := kinds.Lookup(gvk)
	if !ok {
		panic(gvk.String())
	}
	return k
}

const leases = corev1.NamespaceNodeLease

// leasesOfNodes makes a lease of each node; its holder is the node's label x.
func leasesOfNodes() overlay.Synthetic {
	return overlay.Synthetic{
		Kind: kind(kube.Lease), Namespace: leases, Source: kind(kube.Node), Why: "they follow the nodes",
		Build: func(o kube.Object) kube.Object {
			holder := o.GetLabels()["x"]
			return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
		},
	}
}

func over(t testing.TB, below sqlstore.Store, synthetics ...overlay.Synthetic) *overlay.Store {
	t.Helper()
	s, err := overlay.New(overlay.Config{Store: below, Objects: objects.New(objects.Config{Store: below, Kinds: kinds})}, synthetics...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shown is an overlay with what else the conformance suite asks of a store.
type shown struct {
	*overlay.Store
	below *storetest.Spec
}

func (s shown) History() string { return s.below.History() }

func (s shown) Compact(ctx context.Context, to sqlstore.Revision) error {
	return s.below.Compact(ctx, to)
}

func (s shown) Close() error { return s.below.Close() }

// engine opens overlays.
type engine []overlay.Synthetic

func (e engine) Open(t testing.TB) storetest.Store {
	below := &storetest.Spec{}
	return shown{over(t, below, e...), below}
}

// An overlay is a store like any other, with or without synthesized objects beside what is stored.
func TestConformance(t *testing.T) {
	t.Run("empty", func(t *testing.T) { storetest.Run(t, engine(nil)) })
	t.Run("with leases", func(t *testing.T) { storetest.Run(t, engine{leasesOfNodes()}) })
}

func put(t fataler, s sqlstore.Store, obj kube.Object) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	k := kind(gvk)
	enc, err := objects.Encode(k, obj)
	if err != nil {
		t.Fatal(err)
	}
	op := sqlstore.Op{Key: resource.Key(k, obj.GetNamespace(), obj.GetName()), Value: enc.Value, RevAt: enc.At, If: sqlstore.AnyRevision}
	if _, err := s.Commit(context.Background(), op); err != nil {
		t.Fatal(err)
	}
}

type fataler interface{ Fatal(args ...any) }

func node(name, x string) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"x": x}}}
}

func lease(namespace, name, holder string) *coordinationv1.Lease {
	return &coordinationv1.Lease{TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
}

// show is an entry as a test compares it: key, revisions and, of leases, what is in it.
func show(t fataler, key string, rev, created sqlstore.Revision, value []byte) string {
	if !strings.HasPrefix(key, "/coordination.k8s.io/") {
		return fmt.Sprintf("%s %d %d", key, rev, created)
	}
	obj, err := objects.Decode(kind(kube.Lease), value)
	if err != nil {
		t.Fatal(err)
	}
	l := obj.(*coordinationv1.Lease)
	return fmt.Sprintf("%s/%s %d %d: %s %s held by %q", resource.Prefix(kind(kube.Lease), l.Namespace), l.Name, rev, created, l.Kind, l.ResourceVersion, *l.Spec.HolderIdentity)
}

// model is what a list of everything should show, made from a list of what is stored.
func model(t fataler, below sqlstore.Store, at sqlstore.Revision) (rows []string, keys []string) {
	page, err := below.List(context.Background(), "", "", 0, at)
	if err != nil {
		t.Fatal(err)
	}
	byKey := map[string]string{}
	for _, e := range page.Entries {
		if hidden, _, _ := resource.NamesOf(kind(kube.Lease), e.Key); hidden == leases {
			continue
		}
		byKey[e.Key] = show(t, e.Key, e.Rev, e.Created, e.Value)
		if _, name, ok := resource.NamesOf(kind(kube.Node), e.Key); ok {
			n, err := objects.Decode(kind(kube.Node), e.Value)
			if err != nil {
				t.Fatal(err)
			}
			key := resource.Key(kind(kube.Lease), leases, name)
			byKey[key] = fmt.Sprintf("%s/%s %d %d: Lease %s held by %q", resource.Prefix(kind(kube.Lease), leases), name, e.Rev, e.Created, n.GetResourceVersion(), n.GetLabels()["x"])
		}
	}
	for key := range byKey {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		rows = append(rows, byKey[key])
	}
	return rows, keys
}

var names = []string{"a", "aa", "b", "c"}

// write changes something at random: a node, a lease beside the range, or one that the range hides.
func write(t *rapid.T, below *storetest.Spec) {
	name := rapid.SampledFrom(names).Draw(t, "name")
	x := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "x")
	var obj kube.Object = node(name, x)
	if namespace := rapid.SampledFrom([]string{"", "", "core", leases, "z"}).Draw(t, "namespace"); namespace != "" {
		obj = lease(namespace, name, x)
	}
	if rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
		put(t, below, obj)
		return
	}
	key := resource.Key(kind(obj.GetObjectKind().GroupVersionKind()), obj.GetNamespace(), obj.GetName())
	if e, ok, err := below.Get(context.Background(), key); err != nil {
		t.Fatal(err)
	} else if ok {
		op := sqlstore.Op{Key: key, Delete: true, If: e.Rev, RevAt: -1}
		if rapid.Bool().Draw(t, "last state") {
			enc, err := objects.Encode(kind(obj.GetObjectKind().GroupVersionKind()), obj)
			if err != nil {
				t.Fatal(err)
			}
			op.Value, op.RevAt = enc.Value, enc.At
		}
		if _, err := below.Commit(context.Background(), op); err != nil {
			t.Fatal(err)
		}
	}
}

func prefixes() []string {
	all := resource.Prefix(kind(kube.Lease), "")
	return []string{"", "/co", "/coordination.k8s.io/leases", all, all + "c", all + leases, all + leases + "/", all + leases + "/a", all + "z/", resource.Prefix(kind(kube.Node), "")}
}

// Whatever is asked of stored and synthesized keys together, a page is what one list in key order would have.
func TestListsAreExact(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		below := &storetest.Spec{}
		s := over(outer, below, leasesOfNodes())
		for range rapid.IntRange(1, 25).Draw(t, "writes") {
			write(t, below)
		}
		now, _ := below.Revision(t.Context())
		for range 20 {
			prefix := rapid.SampledFrom(prefixes()).Draw(t, "prefix")
			at := sqlstore.Revision(rapid.IntRange(0, int(now)).Draw(t, "at"))
			limit := rapid.IntRange(0, 5).Draw(t, "limit")
			rows, keys := model(t, below, at)
			after := rapid.SampledFrom(append(slices.Clone(keys), "", "/coordination.k8s.io/leases/kube-node-lease/", "/coordination.k8s.io/leases/l", "/a")).Draw(t, "after")
			var want []string
			for i, key := range keys {
				if strings.HasPrefix(key, prefix) && (after == "" || key > after) {
					want = append(want, rows[i])
				}
			}
			remain := 0
			if limit > 0 && len(want) > limit {
				want, remain = want[:limit], len(want)-limit
			}
			page, err := s.List(t.Context(), prefix, after, limit, at)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range page.Entries {
				got = append(got, show(t, e.Key, e.Rev, e.Created, e.Value))
			}
			rev := at
			if rev == 0 {
				rev = now
			}
			if !slices.Equal(got, want) || page.Remain != remain || page.More != (remain > 0) || page.Rev != rev {
				t.Fatalf("list of %q after %q, at most %d, at %d: revision %d, %d more (%v)\n%s\nwant %d more\n%s", prefix, after, limit, at,
					page.Rev, page.Remain, page.More, strings.Join(got, "\n"), remain, strings.Join(want, "\n"))
			}
		}
		for _, key := range append(keysOf(t, s), resource.Key(kind(kube.Lease), leases, "absent")) {
			page, err := s.List(t.Context(), key, "", 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			e, ok, err := s.Get(t.Context(), key)
			if listed := len(page.Entries) > 0 && page.Entries[0].Key == key; err != nil || ok != listed || ok && string(e.Value) != string(page.Entries[0].Value) {
				t.Fatalf("get %s: %v, %v; the list shows %v", key, ok, err, page.Entries)
			}
		}
	})
}

func keysOf(t *rapid.T, s sqlstore.Store) (keys []string) {
	page, err := s.List(t.Context(), "", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		keys = append(keys, e.Key)
	}
	return keys
}

// A watch from any revision leads from the list of that revision to the list of now, and says what was before each change.
func TestWatchesAreExact(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		below := &storetest.Spec{}
		s := over(outer, below, leasesOfNodes())
		for range rapid.IntRange(1, 25).Draw(t, "writes") {
			write(t, below)
		}
		now, _ := below.Revision(t.Context())
		if now == 0 {
			return
		}
		prefix := rapid.SampledFrom(prefixes()).Draw(t, "prefix")
		from := sqlstore.Revision(rapid.IntRange(1, int(now)).Draw(t, "from"))
		list := func(at sqlstore.Revision) map[string]sqlstore.Entry {
			page, err := s.List(t.Context(), prefix, "", 0, at)
			if err != nil {
				t.Fatal(err)
			}
			m := map[string]sqlstore.Entry{}
			for _, e := range page.Entries {
				m[e.Key] = e
			}
			return m
		}
		state, want := list(from), list(now)
		// In a bubble, where Next ends by time as soon as it has nothing more to return.
		synctest.Test(outer, func(*testing.T) { replay(t, s, prefix, from, state) })
		if fmt.Sprint(state) != fmt.Sprint(want) {
			t.Fatalf("watch of %q from %d ends with\n%v\nwant\n%v", prefix, from, state, want)
		}
	})
}

// replay applies to state what a watch returns.
func replay(t *rapid.T, s sqlstore.Store, prefix string, from sqlstore.Revision, state map[string]sqlstore.Entry) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w, err := s.Watch(ctx, prefix, from)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for last := from; ; {
		events, err := w.Next(ctx)
		if err != nil {
			return
		}
		for _, ev := range events {
			old, there := state[ev.Key]
			if ev.Rev < last || !strings.HasPrefix(ev.Key, prefix) || there != (ev.Prev != nil) || there && objects.StoredRevision(ev.Prev) != old.Rev ||
				ev.Value != nil && objects.StoredRevision(ev.Value) != ev.Rev {
				t.Fatalf("event %s at %d after %d: before it was at %d (%v), says %s, now %s", ev.Key, ev.Rev, last, old.Rev, there, ev.Prev, ev.Value)
			}
			last = ev.Rev
			if ev.Deleted {
				delete(state, ev.Key)
			} else {
				state[ev.Key] = sqlstore.Entry{Key: ev.Key, Value: ev.Value, Rev: ev.Rev, Created: ev.Created}
			}
		}
	}
}

// Nobody writes a synthesized object, not even among other ops.
func TestCommitRefuses(t *testing.T) {
	below := &storetest.Spec{}
	s := over(t, below, leasesOfNodes())
	put(t, s, node("a", "1"))
	put(t, s, lease("default", "leader", "me"))
	_, err := s.Commit(t.Context(),
		sqlstore.Op{Key: "/core/nodes/b", RevAt: -1},
		sqlstore.Op{Key: resource.Key(kind(kube.Lease), leases, "a"), Delete: true, If: sqlstore.AnyRevision, RevAt: -1})
	if !apierrors.IsForbidden(err) || err.Error() != `leases.coordination.k8s.io "a" is forbidden: they follow the nodes` {
		t.Errorf("error %v", err)
	}
	if rev, _ := s.Revision(t.Context()); rev != 2 {
		t.Errorf("something was committed: the store is at %d", rev)
	}
	for key, refused := range map[string]bool{"/coordination.k8s.io/leases/kube-node-lease/": true, "/coordination.k8s.io/leases/": false,
		"/coordination.k8s.io/leases/kube-node-lease/b": true, "/core/nodes/a": false} {
		if got := s.ReadOnly(key) != nil; got != refused {
			t.Errorf("%s: read-only %v", key, got)
		}
	}
}

// Objects may be where their sources are, in several namespaces, and there may be several kinds of them.
func TestNamespacedSources(t *testing.T) {
	below := &storetest.Spec{}
	s := over(t, below, leasesOfNodes(), overlay.Synthetic{
		Kind: kind(kube.ConfigMap), Source: kind(kube.Secret), Why: "they show the secrets' names",
		Build: func(o kube.Object) kube.Object { return &corev1.ConfigMap{Data: map[string]string{"of": o.GetName()}} },
	})
	for _, at := range []string{"b/x", "a/y", "a/x"} {
		namespace, name, _ := strings.Cut(at, "/")
		put(t, s, &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	put(t, s, node("a", "1"))
	for prefix, want := range map[string]string{
		"/core/configmaps/":   "/core/configmaps/a/x /core/configmaps/a/y /core/configmaps/b/x",
		"/core/configmaps/a/": "/core/configmaps/a/x /core/configmaps/a/y",
		"/co":                 "/coordination.k8s.io/leases/kube-node-lease/a /core/configmaps/a/x /core/configmaps/a/y /core/configmaps/b/x /core/nodes/a /core/secrets/a/x /core/secrets/a/y /core/secrets/b/x",
	} {
		page, err := s.List(t.Context(), prefix, "", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, e := range page.Entries {
			keys = append(keys, e.Key)
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("list of %s: %s, want %s", prefix, got, want)
		}
	}
	e, ok, err := s.Get(t.Context(), "/core/configmaps/b/x")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	obj, err := objects.Decode(kind(kube.ConfigMap), e.Value)
	if err != nil {
		t.Fatal(err)
	}
	if cm := obj.(*corev1.ConfigMap); cm.Namespace != "b" || cm.Name != "x" || cm.Kind != "ConfigMap" || cm.ResourceVersion != "1" || cm.Data["of"] != "x" {
		t.Errorf("made %+v", cm)
	}
}

func TestNewRefuses(t *testing.T) {
	good := leasesOfNodes()
	for want, change := range map[string]func(*overlay.Synthetic){
		"needs Kind, Source, Build and Why":               func(s *overlay.Synthetic) { s.Build = nil },
		"Lease needs a Namespace: Node has none":          func(s *overlay.Synthetic) { s.Namespace = "" },
		"Lease and Pod do not have one name for one":      func(s *overlay.Synthetic) { s.Source = kind(kube.Pod) },
		"Namespace and Node do not have one name for one": func(s *overlay.Synthetic) { s.Kind = kind(kube.Namespace) },
		"overlap": func(s *overlay.Synthetic) {},
	} {
		bad := leasesOfNodes()
		change(&bad)
		if _, err := overlay.New(overlay.Config{Store: &storetest.Spec{}}, good, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

package objects

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

func encodedMap(t *testing.T, name, value string) (*resource.Kind, *corev1.ConfigMap, Encoded) {
	t.Helper()
	k, ok := builtin.New().Lookup(kube.ConfigMap)
	if !ok {
		t.Fatal("no ConfigMaps")
	}
	cm := &corev1.ConfigMap{Data: map[string]string{"k": value, `"resourceVersion":"5"`: `"resourceVersion":"6"`}}
	cm.Namespace, cm.Name = "default", name
	enc, err := Encode(k, cm)
	if err != nil {
		t.Fatal(err)
	}
	return k, cm, enc
}

func TestRevisionInPlace(t *testing.T) {
	k, _, enc := encodedMap(t, "a", "v")
	for _, rev := range []sqlstore.Revision{1, 99, 1 << 40} {
		raw := enc.With(rev)
		obj, err := Decode(k, raw)
		if err != nil {
			t.Fatal(err)
		}
		got := StoredRevision(raw)
		if obj.GetResourceVersion() != fmt.Sprint(rev) || got != rev || !enc.Same(raw, rev) || enc.Same(raw, rev+1) {
			t.Errorf("%d became %s: %s", rev, obj.GetResourceVersion(), raw)
		}
		if moved := WithRevision(raw, 7); string(moved) != string(enc.With(7)) {
			t.Errorf("moved to 7: %s", moved)
		}
	}
}

// Whichever settles it first, writer or feed, the same object carries the revision, and what another writer wrote is not taken
// for it.
func TestHandoff(t *testing.T) {
	k, mine, enc := encodedMap(t, "a", "mine")
	_, _, rival := encodedMap(t, "a", "rival")
	for _, feedFirst := range []bool{true, false} {
		d := newDecoded(nil)
		mine := mine.DeepCopy()
		h := d.offer(k, "key", enc, mine)
		if o, err := d.object(k, "key", 6, rival.With(6)); err != nil || o == kube.Object(mine) || o.(*corev1.ConfigMap).Data["k"] != "rival" {
			t.Fatalf("the rival's revision is %v, %v", o, err)
		}
		var settled, fed kube.Object
		var err error
		if feedFirst {
			fed, err = d.object(k, "key", 7, enc.With(7))
			settled = d.settle(h, 7)
		} else {
			settled = d.settle(h, 7)
			fed, err = d.object(k, "key", 7, enc.With(7))
		}
		if err != nil || fed != kube.Object(mine) || settled != fed || fed.GetResourceVersion() != "7" || len(d.handed) != 0 {
			t.Errorf("feed first %v: settled %p, fed %p, made %p; %v", feedFirst, settled, fed, mine, err)
		}
	}
	d := newDecoded(nil)
	if d.settle(d.offer(k, "key", enc, mine), 0); len(d.handed) != 0 {
		t.Error("a commit that failed left its offer")
	}
}

// TestHandoffIsWhatIsStored checks that readers get of a custom object what is stored of it: of a number without a fraction that is an integer,
// and an update that compares it with a float64 would count a change.
func TestHandoffIsWhatIsStored(t *testing.T) {
	k := resource.Custom{GVK: kube.GVK{Group: "example.dev", Version: "v1", Kind: "Widget"}, Plural: "widgets", Singular: "widget"}.Kind()
	for name, test := range map[string]struct {
		spec   any
		handed bool
	}{
		"integer":               {int64(1), true},
		"fraction":              {1.5, true},
		"float without one":     {1.0, false},
		"such a float in a map": {map[string]any{"a": "x", "b": map[string]any{"c": 1e3}}, false},
		"and in a list":         {[]any{nil, true, []any{-2.0}}, false},
		"none of all these":     {[]any{nil, true, map[string]any{"a": []any{"x", int64(1), 0.1}}}, true},
	} {
		obj := k.New().(*unstructured.Unstructured)
		obj.SetName("a")
		obj.Object["spec"] = test.spec
		enc, err := Encode(k, obj)
		if err != nil {
			t.Fatal(err)
		}
		d := newDecoded(slog.New(slog.DiscardHandler))
		h := d.offer(k, "key", enc, obj)
		read, err := d.object(k, "key", 7, enc.With(7))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := Decode(k, enc.With(7))
		if err != nil {
			t.Fatal(err)
		}
		if (h != nil) != test.handed || (read == kube.Object(obj)) != test.handed || !equality.Semantic.DeepEqual(read, stored) {
			t.Errorf("%s: handed over %v, read %v, stored %v", name, h != nil, read, stored)
		}
	}
}

// A revision is decoded once for all, and old ones are forgotten.
func TestDecodedOnceAndBounded(t *testing.T) {
	k, _, enc := encodedMap(t, "a", "v")
	d := newDecoded(nil)
	objs := make([]kube.Object, 16)
	var wg sync.WaitGroup
	for i := range objs {
		wg.Go(func() { objs[i], _ = d.object(k, "key", 1, enc.With(1)) })
	}
	wg.Wait()
	for _, o := range objs {
		if o == nil || o != objs[0] {
			t.Fatal("decoded more than once")
		}
	}
	for rev := range sqlstore.Revision(3 * keepDecoded) {
		if _, err := d.object(k, "key", rev+2, enc.With(rev+2)); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := d.peek("key", 1); ok || len(d.known) > keepDecoded {
		t.Errorf("%d revisions are kept", len(d.known))
	}
}

func TestIndexMoves(t *testing.T) {
	ix := newIndex(func(o kube.Object) []string { return []string{o.GetName(), "all"} })
	obj := func(name string) kube.Object { cm := &corev1.ConfigMap{}; cm.Name = name; return cm }
	a, b := obj("x"), obj("y")
	ix.change("2", nil, a)
	ix.change("1", nil, a)
	ix.change("1", a, b)
	show := func(v string) (s string) {
		for _, e := range ix.under[v] {
			s += e.key + "=" + e.obj.GetName() + " "
		}
		return s
	}
	if got := show("all") + "|" + show("x") + "|" + show("y"); got != "1=y 2=x |2=x |1=y " {
		t.Error(got)
	}
	ix.change("1", b, nil)
	ix.change("2", a, nil)
	if len(ix.under) != 0 {
		t.Errorf("left %v", ix.under)
	}
}

// However many large revisions there were, few stay decoded; the newest does.
func TestDecodedIsBoundedInBytes(t *testing.T) {
	k, _, enc := encodedMap(t, "a", strings.Repeat("x", 1<<20))
	d := newDecoded(nil)
	for rev := sqlstore.Revision(1); rev <= 100; rev++ {
		if _, err := d.object(k, "key", rev, enc.With(rev)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.known) > 2 || len(d.recent) != len(d.known) {
		t.Errorf("%d revisions of 1 MiB are kept decoded", len(d.known))
	}
	if _, ok := d.peek("key", 100); !ok {
		t.Error("the newest is not")
	}
	_, _, small := encodedMap(t, "b", "x")
	for rev := sqlstore.Revision(101); rev <= 3000; rev++ {
		if _, err := d.object(k, "other", rev, small.With(rev)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.known) != keepDecoded {
		t.Errorf("%d small revisions are kept decoded, want %d", len(d.known), keepDecoded)
	}
}

// Custom objects are heavier than their JSON: few recent ones stay decoded, and large ones are not.
func TestRecentCustomObjectsAreFew(t *testing.T) {
	k := resource.Custom{GVK: kube.GVK{Group: "example.dev", Version: "v1", Kind: "Widget"}, Plural: "widgets", Singular: "widget"}.Kind()
	encode := func(bytes int) (kube.Object, Encoded) {
		obj := k.New().(*unstructured.Unstructured)
		obj.SetName("a")
		obj.Object["spec"] = strings.Repeat("x", bytes)
		enc, err := Encode(k, obj)
		if err != nil {
			t.Fatal(err)
		}
		return obj, enc
	}
	c := &Cache{decoded: newDecoded(slog.New(slog.DiscardHandler))}
	large, enc := encode(20 << 10)
	if h := c.Offer(k, "large", enc, large); h != nil || len(c.decoded.handed) != 0 {
		t.Error("a large object is taken over from its writer")
	}
	percent := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(percent)
	first, err := c.Typed(k, "large", 1, enc.With(1))
	if err != nil || first.GetResourceVersion() != "1" || len(c.decoded.known) != 0 {
		t.Errorf("%d are kept of a large object; %v", len(c.decoded.known), err)
	}
	if again, err := c.Typed(k, "large", 1, enc.With(1)); err != nil || again != first {
		t.Errorf("a large object is decoded for each of its readers: %v", err)
	}
	if other, err := c.Typed(k, "large", 2, enc.With(2)); err != nil || other == first || other.GetResourceVersion() != "2" {
		t.Errorf("another revision is %v, %v", other.GetResourceVersion(), err)
	}
	runtime.GC()
	if c.decoded.large.e.Value() != nil {
		t.Error("a large object that nobody reads any more is held")
	}
	small, enc := encode(4 << 10)
	h := c.Offer(k, "small", enc, small)
	c.Settle(h, 2)
	if obj, err := c.Typed(k, "small", 2, enc.With(2)); err != nil || obj != small {
		t.Errorf("what a writer has made is decoded again: %v", err)
	}
	for rev := sqlstore.Revision(3); rev < 200; rev++ {
		if _, err := c.Typed(k, "small", rev, enc.With(rev)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.decoded.known); n > 64 || n < 50 {
		t.Errorf("%d objects of 4 KiB are kept", n)
	}
}

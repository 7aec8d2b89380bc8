package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// state is what a client believes: "ns/name" → stored bytes.
type state map[string]string

func nameOf(t *rapid.T, raw []byte) (key, rv string) {
	var o struct{ Metadata metav1.ObjectMeta }
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	return o.Metadata.Namespace + "/" + o.Metadata.Name, o.Metadata.ResourceVersion
}

func listed(t *rapid.T, items []json.RawMessage) state {
	s := state{}
	for _, raw := range items {
		key, _ := nameOf(t, raw)
		s[key] = string(raw)
	}
	return s
}

// TestListAndWatchAgree checks that whatever is written, a list at any revision and the watch events since then make the list
// of now, for every selection; lists in chunks make the whole list; and the typed cache holds the same.
func TestListAndWatchAgree(t *testing.T) {
	selections := []metav1.ListOptions{{}, {LabelSelector: "x=1"}, {LabelSelector: "x!=1"}, {FieldSelector: "metadata.name=a"}, {LabelSelector: "x", FieldSelector: "metadata.namespace=n2"}}
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		r := registrytest.New(outer)
		all := registrytest.Target(outer, kube.ConfigMap, "", "")
		history := map[string]map[int]state{} // revision → selection → state
		remember := func() string {
			rv := ""
			at := map[int]state{}
			for i, sel := range selections {
				res, err := r.List(ctx, all, &sel)
				if err != nil {
					t.Fatal(err)
				}
				at[i], rv = listed(t, res.Items), res.ResourceVersion
			}
			history[rv] = at
			return rv
		}
		for range rapid.IntRange(1, 25).Draw(t, "writes") {
			write(t, outer, r)
			remember()
		}
		now := remember()
		for rv, at := range history {
			for i, sel := range selections {
				follow(t, r, all, rv, now, sel, at[i], history[now][i])
			}
		}
		chunked(t, r, all, selections[rapid.IntRange(0, 2).Draw(t, "selection")])
		eventually(outer, "the cache is as the store", func() bool {
			cached := state{}
			for _, o := range r.Client().List(kube.ConfigMap, "") {
				b, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				cached[o.GetNamespace()+"/"+o.GetName()] = string(b)
			}
			return maps.Equal(cached, history[now][0])
		})
	})
}

// write does one random thing to one of few objects.
func write(t *rapid.T, outer *testing.T, r *registry.Registry) {
	ns := rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "namespace")
	name := rapid.SampledFrom([]string{"a", "aa", "b"}).Draw(t, "name")
	x := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "x")
	at := registrytest.Target(outer, kube.ConfigMap, ns, name)
	var err error
	switch rapid.SampledFrom([]string{"create", "update", "patch", "delete"}).Draw(t, "verb") {
	case "create":
		_, err = r.Create(ctx, at, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"x": x}}}, nil)
	case "update":
		_, err = r.Update(ctx, at, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"x": x}}}, nil)
	case "patch":
		_, err = r.Patch(ctx, at, types.MergePatchType, []byte(fmt.Sprintf(`{"data":{"k":%q}}`, x)), nil)
	case "delete":
		_, err = r.Delete(ctx, at, nil)
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// follow replays the watch from rv on what was there at rv.
func follow(t *rapid.T, r *registry.Registry, all resource.Target, rv, now string, sel metav1.ListOptions, start, want state) {
	believed := maps.Clone(start)
	if rv != now {
		sel.ResourceVersion = rv
		w, err := r.Watch(ctx, all, &sel)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for !maps.Equal(believed, want) {
			evs, err := w.Next(withDeadline(t))
			if err != nil {
				t.Fatalf("from %s by %+v it ends with %v, want %v: %v", rv, sel, believed, want, err)
			}
			for _, ev := range evs {
				apply(t, believed, ev, rv)
			}
		}
	}
	if !maps.Equal(believed, want) {
		t.Fatalf("at %s believed %v, want %v", now, believed, want)
	}
}

// apply checks that an event makes sense to a client that has seen all before it.
func apply(t *rapid.T, s state, ev registry.WatchEvent, since string) {
	key, rv := nameOf(t, ev.JSON)
	_, has := s[key]
	if (ev.Type == "ADDED") == has {
		t.Fatalf("%s of %s, which the client (watching from %s) has: %v", ev.Type, key, since, has)
	}
	if number(t, rv) <= number(t, since) {
		t.Fatalf("event at %s on a watch from %s", rv, since)
	}
	if ev.Type == "DELETED" {
		delete(s, key)
	} else {
		s[key] = string(ev.JSON)
	}
}

func number(t *rapid.T, rv string) (n int) {
	if _, err := fmt.Sscan(rv, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// chunked reads the list page by page.
func chunked(t *rapid.T, r *registry.Registry, all resource.Target, sel metav1.ListOptions) {
	whole, err := r.List(ctx, all, &sel)
	if err != nil {
		t.Fatal(err)
	}
	sel.Limit = int64(rapid.IntRange(1, 3).Draw(t, "limit"))
	var items []json.RawMessage
	for {
		page, err := r.List(ctx, all, &sel)
		if err != nil {
			t.Fatal(err)
		}
		if items = append(items, page.Items...); page.ResourceVersion != whole.ResourceVersion || len(page.Items) > int(sel.Limit) {
			t.Fatalf("page of %d at %s", len(page.Items), page.ResourceVersion)
		}
		if sel.Continue = page.Continue; sel.Continue == "" {
			break
		}
	}
	if !slices.EqualFunc(items, whole.Items, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
		t.Fatalf("in chunks %s, whole %s", items, whole.Items)
	}
}

// withDeadline ends a wait that would otherwise hang the test.
func withDeadline(t *rapid.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

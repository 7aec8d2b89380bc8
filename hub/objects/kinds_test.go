package objects_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/memory"
)

var widgetGVK = kube.GVK{Group: "example.dev", Version: "v1", Kind: "Widget"}

func widgetKind() *resource.Kind {
	return resource.Custom{GVK: widgetGVK, Plural: "widgets", Singular: "widget", Namespaced: true}.Kind()
}

// put commits a new object of the kind.
func put(t *testing.T, s sqlstore.Store, k *resource.Kind, obj kube.Object) {
	t.Helper()
	enc, err := objects.Encode(k, obj)
	if err != nil {
		t.Fatal(err)
	}
	key := resource.Key(k, obj.GetNamespace(), obj.GetName())
	if _, err := s.Commit(t.Context(), sqlstore.Op{Key: key, Value: enc.Value, RevAt: enc.At}); err != nil {
		t.Fatal(err)
	}
}

func putWidget(t *testing.T, s sqlstore.Store, name string) {
	t.Helper()
	k := widgetKind()
	obj := k.New()
	obj.SetNamespace("default")
	obj.SetName(name)
	put(t, s, k, obj)
}

func run(t *testing.T, c *objects.Cache) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// changes is a subscriber that notes what it gets: "+a" for a creation, "-a" for a deletion, "a" for an update.
type changes struct {
	mu  sync.Mutex
	got []string
}

func (c *changes) note(ch control.Change) {
	mark := ""
	switch {
	case ch.Old == nil:
		mark = "+"
	case ch.New == nil:
		mark = "-"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, mark+ch.Object().GetName())
}

// take returns what has come since the last call, in alphabetical order.
func (c *changes) take() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	slices.Sort(got)
	return strings.Join(got, " ")
}

// A kind that goes leaves nothing behind in the cache, and is no deletion of its objects; when it comes, those who subscribed
// before see each object as created. Nothing of it runs on: the test's bubble ends.
func TestKindsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, kinds := memory.New(memory.Config{}), builtin.New()
		c := objects.New(objects.Config{Store: store, Kinds: kinds})
		run(t, c)
		putWidget(t, store, "a")
		var got changes
		ctx, cancel := context.WithCancel(t.Context())
		c.Subscribe(ctx, got.note, widgetGVK, kube.ConfigMap)
		expect := func(when, want string, there bool) {
			t.Helper()
			if got := got.take(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
			_, ok := c.Get(widgetGVK, "default", "a")
			if listed := len(c.List(widgetGVK, "")) > 0; ok != there || listed != there {
				t.Errorf("%s: found %v, listed %v", when, ok, listed)
			}
		}
		add := func() {
			t.Helper()
			if err := kinds.Add(widgetKind()); err != nil {
				t.Fatal(err)
			}
		}
		expect("before it is served", "", false)
		add()
		expect("served", "+a", true)
		putWidget(t, store, "b")
		expect("a second one", "+b", true)
		kinds.Remove(widgetGVK)
		expect("gone", "", false)
		putWidget(t, store, "c")
		expect("written while it is gone", "", false)
		add()
		expect("served again", "+a +b +c", true)
		kinds.Remove(widgetGVK)
		add()
		expect("declared anew", "+a +b +c", true)
		cancel()
		synctest.Wait()
		putWidget(t, store, "d")
		expect("after the subscription", "", true)
	})
}

// Who takes the events of a kind over keeps them when the one before ends, whichever comes first.
func TestEventsAreTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		c := objects.New(objects.Config{Store: store, Kinds: builtin.New()})
		run(t, c)
		var first, second int
		part := resource.Prefix(widgetKind(), "")
		end := c.OnEvent(part, func(sqlstore.Event) { first++ })
		putWidget(t, store, "a")
		synctest.Wait()
		endSecond := c.OnEvent(part, func(sqlstore.Event) { second++ })
		end()
		putWidget(t, store, "b")
		synctest.Wait()
		endSecond()
		putWidget(t, store, "c")
		synctest.Wait()
		if first != 1 || second != 1 {
			t.Errorf("the first got %d events and the second %d, want one each", first, second)
		}
	})
}

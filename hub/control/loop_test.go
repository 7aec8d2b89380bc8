package control_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

// calls records when each key was reconciled, relative to the start.
type calls struct {
	mu    sync.Mutex
	start time.Time
	at    map[string][]time.Duration
}

func newCalls() *calls { return &calls{start: time.Now(), at: map[string][]time.Duration{}} }

func (c *calls) add(k control.Key) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[k.Name] = append(c.at[k.Name], time.Since(c.start))
	return len(c.at[k.Name])
}

func (c *calls) of(name string) []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[name]
}

func run(t *testing.T, l *control.Loop) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestLoopReconcilesExistingAndChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, configMap("old"))
		got := newCalls()
		run(t, &control.Loop{Name: "t", Client: c, Sources: []control.Source{{GVK: kube.ConfigMap}},
			Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) { got.add(k); return 0, nil }})
		synctest.Wait()
		if len(got.of("old")) != 1 {
			t.Fatalf("existing object reconciled %d times, want once", len(got.of("old")))
		}
		c.Put(configMap("new"))
		synctest.Wait()
		c.Remove(kube.ConfigMap, "default", "new")
		synctest.Wait()
		if len(got.of("new")) != 2 {
			t.Fatalf("created and deleted object reconciled %d times, want twice", len(got.of("new")))
		}
		time.Sleep(24 * time.Hour)
		if len(got.of("old")) != 1 {
			t.Fatalf("idle loop reconciled again: %v", got.of("old"))
		}
	})
}

func TestLoopBacksOffAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, configMap("a"))
		got := newCalls()
		run(t, &control.Loop{Name: "t", Client: c, Sources: []control.Source{{GVK: kube.ConfigMap}},
			Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) {
				if n := got.add(k); n <= 8 {
					return 0, errors.New("not yet")
				}
				return 0, nil
			}})
		time.Sleep(time.Hour)
		at := got.of("a")
		if len(at) != 9 {
			t.Fatalf("reconciled %d times, want 8 failures and a success", len(at))
		}
		for i := 2; i < len(at); i++ {
			before, now := at[i-1]-at[i-2], at[i]-at[i-1]
			if now < before*18/10 {
				t.Errorf("delay %d is %v after %v, want it doubled", i, now, before)
			}
		}
	})
}

func TestLoopConflictComesBackSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, configMap("a"))
		got := newCalls()
		run(t, &control.Loop{Name: "t", Client: c, Sources: []control.Source{{GVK: kube.ConfigMap}},
			Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) {
				got.add(k)
				return 0, apierrors.NewConflict(schema.GroupResource{Resource: "x"}, "a", errors.New("changed"))
			}})
		time.Sleep(time.Minute)
		at := got.of("a")
		if last := at[len(at)-1] - at[len(at)-2]; last > 1200*time.Millisecond {
			t.Errorf("after many conflicts it waits %v, want about a second", last)
		}
	})
}

func TestLoopRequeueAfterReplacesEarlierWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, configMap("a"))
		got := newCalls()
		l := &control.Loop{Name: "t", Client: c, Sources: []control.Source{{GVK: kube.ConfigMap}},
			Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) {
				if got.add(k) == 1 {
					return time.Minute, nil
				}
				return 0, nil
			}}
		run(t, l)
		time.Sleep(10 * time.Second)
		l.Enqueue(control.Key{Namespace: "default", Name: "a"}) // wants nothing later
		time.Sleep(time.Hour)
		if at := got.of("a"); len(at) != 2 {
			t.Errorf("reconciled at %v, want at the start and at 10 s only", at)
		}
	})
}

func TestLoopNeverRunsOneKeyTwiceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		var mu sync.Mutex
		active := map[control.Key]bool{}
		n, together := 0, 0
		l := &control.Loop{Name: "t", Client: c, Workers: 4,
			Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) {
				mu.Lock()
				if active[k] {
					t.Errorf("%v is reconciled by two workers", k)
				}
				active[k] = true
				together = max(together, len(active))
				n++
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				delete(active, k)
				mu.Unlock()
				return 0, nil
			}}
		run(t, l)
		for i := range 8 {
			l.Enqueue(control.Key{Name: fmt.Sprint(i)})
		}
		time.Sleep(500 * time.Millisecond)
		for i := range 8 {
			l.Enqueue(control.Key{Name: fmt.Sprint(i)}) // four are active, four wait
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if n != 12 || together != 4 {
			t.Errorf("%d calls, %d at a time; want 12 (active ones come again, waiting ones do not) and 4", n, together)
		}
	})
}

// A source can be added while the loop runs; its objects come up as at a start, and no more once it has ended.
func TestLoopFollowsAndLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, configMap("old"))
		got := newCalls()
		l := &control.Loop{Name: "t", Client: c, Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) {
			got.add(k)
			return 0, nil
		}}
		run(t, l)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		l.Follow(ctx, control.Source{GVK: kube.ConfigMap})
		c.Put(configMap("new"))
		synctest.Wait()
		if len(got.of("old")) != 1 || len(got.of("new")) != 1 {
			t.Errorf("followed: old %v, new %v", got.of("old"), got.of("new"))
		}
		cancel()
		synctest.Wait()
		c.Put(configMap("late"))
		synctest.Wait()
		if len(got.of("late")) != 0 {
			t.Error("a source that has ended brings up a key")
		}
	})
}

// A loop of every kind knows all kinds before its first reconcile, and follows those that come and no longer those that go.
func TestLoopFollowsEveryKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, configMap("a"))
		secret := func(name string) *corev1.Secret {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		}
		c.Put(secret("s"))
		configMaps, secrets := control.StoredKind{GVK: kube.ConfigMap}, control.StoredKind{GVK: kube.Secret}
		kinds := controltest.NewKinds(configMaps, control.StoredKind{GVK: kube.Event, Expires: true})
		got := newCalls()
		var known atomic.Int32
		l := &control.Loop{Name: "t", Client: c, Every: &control.EveryKind{
			Kinds: kinds, Changed: func(now []control.StoredKind) { known.Store(int32(len(now))) },
			Source: func(k control.StoredKind) (control.Source, bool) { return control.Source{GVK: k.GVK}, !k.Expires },
		}, Reconcile: func(_ context.Context, k control.Key) (time.Duration, error) {
			if known.Load() == 0 {
				t.Errorf("%v is reconciled before the kinds are known", k)
			}
			got.add(k)
			return 0, nil
		}}
		l.Enqueue(control.Key{Name: "first"})
		run(t, l)
		synctest.Wait()
		if len(got.of("a")) != 1 || len(got.of("s")) != 0 || known.Load() != 2 {
			t.Errorf("at the start: a %v, s %v, %d kinds", got.of("a"), got.of("s"), known.Load())
		}
		kinds.Set(configMaps, secrets)
		synctest.Wait()
		if len(got.of("a")) != 1 || len(got.of("s")) != 1 {
			t.Errorf("a kind has come: a %v, s %v", got.of("a"), got.of("s"))
		}
		kinds.Set(configMaps)
		synctest.Wait()
		c.Put(secret("late"))
		synctest.Wait()
		if len(got.of("late")) != 0 {
			t.Error("a kind that has gone brings up a key")
		}
		kinds.Set(configMaps, secrets)
		synctest.Wait()
		if len(got.of("late")) != 1 {
			t.Error("a kind that has come again does not bring up its objects")
		}
	})
}

func TestGVKOf(t *testing.T) {
	custom := &unstructured.Unstructured{}
	custom.SetAPIVersion("example.dev/v1")
	custom.SetKind("Widget")
	for want, obj := range map[kube.GVK]kube.Object{
		kube.Lease: &coordinationv1.Lease{}, kube.Pod: &corev1.Pod{}, kube.EndpointSlice: &discoveryv1.EndpointSlice{}, kube.ReplicaSet: &appsv1.ReplicaSet{},
		{Group: "example.dev", Version: "v1", Kind: "Widget"}: custom,
	} {
		if got := control.GVKOf(obj); got != want {
			t.Errorf("%T is a %s, want %s", obj, got, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an object of no known kind has one")
		}
	}()
	control.GVKOf(&unstructured.Unstructured{Object: map[string]any{}})
}

// However far the cache is behind, Reconcile is called when it shows what was committed before: what an earlier call created
// or deleted, and what others did.
func TestReconcileSeesItsOwnWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		write, calls := func() {}, 0
		l := &control.Loop{Name: "t", Client: c, Reconcile: func(context.Context, control.Key) (time.Duration, error) {
			calls++
			write()
			return 0, nil
		}}
		run(t, l)
		// settled reports whether a key that comes up now is reconciled at once.
		settled := func() bool {
			before := calls
			l.Enqueue(control.Key{Namespace: "default", Name: "rs"})
			synctest.Wait()
			return calls == before+1
		}
		once := func(f func()) func() { return sync.OnceFunc(f) }

		c.Lag(true)
		write = once(func() {
			for _, name := range []string{"a", "b", "c"} {
				if _, err := c.Create(t.Context(), configMap(name)); err != nil {
					t.Error(err)
				}
			}
		})
		if !settled() {
			t.Fatal("nothing was committed before")
		}
		if settled() {
			t.Fatal("settled before the cache has any of the created objects")
		}
		for range 2 {
			c.Step(1)
			if synctest.Wait(); calls != 1 {
				t.Fatal("settled before the cache has all the created objects")
			}
		}
		c.Step(1)
		if synctest.Wait(); calls != 2 {
			t.Fatal("not settled although the cache has the objects")
		}

		// An object that has come and gone is nothing to wait for.
		c.Lag(false)
		if _, err := c.Create(t.Context(), configMap("d")); err != nil {
			t.Fatal(err)
		}
		c.Remove(kube.ConfigMap, "default", "d")
		if !settled() {
			t.Fatal("waits for an object that has come and gone")
		}

		c.Lag(true)
		write = once(func() {
			if err := c.Delete(t.Context(), kube.ConfigMap, "default", "a", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
		if !settled() {
			t.Fatal("nothing was committed before")
		}
		if settled() {
			t.Fatal("settled before the cache shows the deletion")
		}
		c.Lag(false)
		if synctest.Wait(); calls != 5 {
			t.Fatalf("not settled although the object is gone: %d calls", calls)
		}
	})
}

package control_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

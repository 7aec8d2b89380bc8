package podrun_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// has reports whether an event of a pod with a reason and a text in its message was recorded.
func (n *node) has(pod, reason, text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.InvolvedObject.Name == pod && e.Reason == reason && strings.Contains(e.Message, text) {
			return true
		}
	}
	return false
}

// hostilePods are more pods than there are slots of any kind.
func hostilePods(prefix, image string) []any {
	var out []any
	for i := range 40 {
		out = append(out, aPod(fmt.Sprint(prefix, i), func(p *corev1.Pod) { p.Spec.Containers[0].Image = image }))
	}
	return out
}

// TestHangingStarts checks that starts that never return, and do not even notice that nobody waits for them, cost other pods
// one turn.
func TestHangingStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		release := make(chan struct{})
		n.fake.StartWait = func(_ context.Context, spec cruntime.ContainerSpec) {
			if strings.HasPrefix(spec.PodUID, "bad") {
				<-release
			}
		}
		bad := hostilePods("bad", "app:1")
		n.apply(true, bad...)
		n.apply(true, append(bad, aPod("good"))...)
		time.Sleep(25 * time.Minute) // 40 turns of 30 s on a machine with one slot; those after each other have given theirs back
		n.settle()
		n.want("good", "Running main#0 running")
		for _, e := range []struct{ reason, text string }{{"SlowStart", "for 30s"}, {"Failed", "starting container main has taken more than 4m0s"}} {
			if !n.has("bad0", e.reason, e.text) {
				t.Errorf("no event %s with %q", e.reason, e.text)
			}
		}
		n.want("bad0", "Pending main#0 CreateContainerError")
		// Such a pod can be deleted.
		n.apply(true, append(bad[1:], aPod("good"))...)
		time.Sleep(time.Minute)
		n.settle()
		if strings.Contains(fmt.Sprint(n.manager.Running()), "41") {
			t.Errorf("%d pods are looked after, want 40", n.manager.Running())
		}
		// And the agent stops, whatever hangs.
		begin := time.Now()
		n.stop()
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("stopping took %s", took)
		}
		close(release)
		synctest.Wait()
	})
}

// TestDrippingPulls checks that registries that send next to nothing hold the slots for pulls no longer than a turn.
func TestDrippingPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.PullWait = func(ctx context.Context, ref string) {
			if strings.HasPrefix(ref, "drip") {
				<-ctx.Done()
			}
		}
		bad := hostilePods("bad", "drip:1")
		n.apply(true, bad...)
		n.apply(true, append(bad, aPod("good", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "good:1" }))...)
		time.Sleep(3 * time.Hour) // 40 pulls, three at a time, ten minutes each
		n.settle()
		n.want("good", "Running main#0 running")
		told := 0 // the first three go on beyond their turn, whichever they are
		for i := range bad {
			if n.has(fmt.Sprint("bad", i), "Failed", "others wait") {
				told++
			}
		}
		if told < len(bad)-3 {
			t.Errorf("%d pods are told that their pull has had its turn, want all but three", told)
		}
	})
}

// TestOneSlotPerPod checks that a pod with many images pulls one at a time, and leaves the other slots to others.
func TestOneSlotPerPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		var now, most atomic.Int32
		n.fake.PullWait = func(ctx context.Context, ref string) {
			if !strings.HasPrefix(ref, "drip") {
				return
			}
			if c := now.Add(1); c > most.Load() {
				most.Store(c)
			}
			defer now.Add(-1)
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
		}
		greedy := aPod("greedy", func(p *corev1.Pod) {
			p.Spec.Containers = nil
			for i := range 10 {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i), Image: fmt.Sprintf("drip%d:1", i)})
			}
		})
		n.apply(true, greedy, aPod("good", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "good:1" }))
		n.settle()
		n.want("good", "Running main#0 running")
		time.Sleep(11 * time.Minute)
		if most.Load() != 1 {
			t.Errorf("%d pulls of one pod at once", most.Load())
		}
	})
}

// TestPanicsStayWithTheirPod checks that a fault in the work on one pod is that pod's, wherever it happens; it hears of it, and
// goes on when the fault is gone.
func TestPanicsStayWithTheirPod(t *testing.T) {
	for _, site := range []string{"podrun/worker", "podrun/step", "podrun/pull", "podrun/probe", "podrun/hook"} {
		t.Run(strings.ReplaceAll(site, "/", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				broken.Store(true)
				defer contain.Inject(func(at, key string) {
					if at == site && strings.HasPrefix(key, "bad") && broken.Load() {
						panic("a fault")
					}
				})()
				before := contain.Counts()[site]
				n := newNode(t)
				defer n.stop()
				change := func(p *corev1.Pod) {
					p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1,
						ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
					p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
				}
				n.apply(true, aPod("bad", change), aPod("good", change))
				time.Sleep(time.Minute)
				n.settle()
				n.want("good", "Running main#0 running")
				if contain.Counts()[site] == before {
					t.Fatal("nothing has panicked: the test shows nothing")
				}
				n.mu.Lock()
				heard := false
				for _, e := range n.events {
					heard = heard || e.InvolvedObject.Name == "bad" && strings.Contains(e.Message, "a fault")
				}
				n.mu.Unlock()
				if !heard {
					t.Error("no event of the pod says what is wrong")
				}
				if counted := contain.Counts()[site] - before; counted > 100 {
					t.Errorf("%d panics in a minute: it is not backed off", counted)
				}
				broken.Store(false)
				time.Sleep(15 * time.Minute)
				n.settle()
				if !strings.HasPrefix(n.line("bad"), "Running main#") || !strings.HasSuffix(n.line("bad"), "running") {
					t.Errorf("after the fault is gone: %q", n.line("bad"))
				}
			})
		})
	}
}

// TestPanicInStream checks that who asked hears of it, and the stream ends.
func TestPanicInStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer contain.Inject(func(site, _ string) {
			if site == "podrun/stream" {
				panic("a fault")
			}
		})()
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p"))
		s := &deadStream{}
		n.manager.ServeStream(t.Context(), wire.StreamRequest{Kind: wire.StreamLogs, PodUID: "p"}, s)
		if !strings.Contains(s.end.Message, "a fault") {
			t.Errorf("the stream ends with %+v", s.end)
		}
	})
}

type deadStream struct {
	mu  sync.Mutex
	end wire.StreamEnd
}

func (*deadStream) Send(context.Context, wire.Channel, []byte) error { return nil }
func (*deadStream) CloseSend(context.Context, wire.Channel) error    { return nil }
func (*deadStream) Recv(ctx context.Context) (wire.Channel, []byte, error) {
	return 0, nil, errors.New("nothing comes")
}
func (s *deadStream) Close(end wire.StreamEnd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = end
	return nil
}

// TestHangingLook checks that a runtime that does not answer for a while, and does not even notice that nobody waits for it, is
// asked again once it has come back; nothing else than its answer ends the wait.
func TestHangingLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p"))
		n.want("p", "Running main#0 running")
		release := make(chan struct{})
		var hangs atomic.Bool
		hangs.Store(true)
		n.fake.ContainersError = func() error {
			if hangs.Load() {
				<-release
			}
			return nil
		}
		n.manager.Refresh()
		time.Sleep(5 * time.Minute)
		hangs.Store(false)
		close(release)
		n.fake.Exit("p", "main", 1)
		time.Sleep(time.Minute)
		n.settle()
		n.want("p", "Running main#1 running")
	})
}

package dispatch

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/dispatch/desired"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// The more nodes there are to inform, the longer changes are gathered, up to a second.
func TestGatherGrowsWithTheFleet(t *testing.T) {
	for nodes, want := range map[int]time.Duration{0: 0, 3: 3 * time.Millisecond, 300: 300 * time.Millisecond, 5000: time.Second} {
		if got := gather(nodes); got != want {
			t.Errorf("%d nodes: %v, want %v", nodes, got, want)
		}
	}
}

// A change after a while goes at once; those that follow within the time of gathering go together when it is over; and a Service goes
// before a pod that is sent after it was made.
func TestChangesOfServicesAreGathered(t *testing.T) {
	const nodes = 200
	d := &Dispatch{cfg: Config{Log: slog.New(slog.DiscardHandler)}, byName: map[string]*node{}, common: wire.NewShared(), touched: map[*node]struct{}{}}
	d.set = desired.New(desired.Config{Sources: desired.Table(), Reader: controltest.New(t)})
	now := time.Unix(1e9, 0)
	for i := range nodes {
		n := &node{name: fmt.Sprint("n", i), current: &conn{}, down: wire.NewSharing(d.common)}
		n.down.UseRounds()
		n.down.Begin(n.down.Hash())
		d.byName[n.name] = n
		d.set.Open(now, n.name, true)
	}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}
	}
	service := func(name string) control.Change {
		return control.Change{GVK: kube.Service, New: &corev1.Service{ObjectMeta: meta(name)}}
	}
	slice := func(n int) control.Change {
		m := meta(fmt.Sprint("web-", n))
		m.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
		return control.Change{GVK: kube.EndpointSlice, New: &discoveryv1.EndpointSlice{ObjectMeta: m,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{fmt.Sprint("10.42.0.", n+1)}}}}}
	}
	change := func(after time.Duration, c ...control.Change) {
		now = now.Add(after)
		for _, c := range c {
			d.set.Change(now, c)
		}
		d.spread()
		d.share(now)
	}
	sent := func() (rounds, puts int) { // to one of them
		if b, ok := d.byName["n7"].down.Next(1).(*wire.Batch); ok {
			d.byName["n7"].down.Applied(&wire.Applied{Seq: b.Seq, Hash: b.Hash})
			rounds, puts = len(b.Rounds), len(b.Puts)
		}
		return rounds, puts
	}
	expect := func(what string, rounds, puts int) {
		t.Helper()
		if r, p := sent(); r != rounds || p != puts {
			t.Errorf("%s: %d rounds and %d puts, want %d and %d", what, r, p, rounds, puts)
		}
	}
	change(0, service("web"))
	expect("the first change", 1, 0)
	for i := range 10 {
		change(10*time.Millisecond, slice(i))
	}
	expect("within the time of gathering", 0, 0)
	if left := d.wake.Sub(now); left != gather(nodes)-100*time.Millisecond {
		t.Errorf("wakes in %v", left)
	}
	change(100 * time.Millisecond)
	expect("when it is over", 1, 0)
	change(10*time.Millisecond, service("db"), control.Change{GVK: kube.Pod, New: &corev1.Pod{ObjectMeta: meta("p"), Spec: corev1.PodSpec{NodeName: "n7"}}})
	expect("a Service, then a pod", 1, 1)
	change(10*time.Millisecond, slice(20), control.Change{GVK: kube.Pod, New: &corev1.Pod{ObjectMeta: meta("q"), Spec: corev1.PodSpec{NodeName: "n7"}}})
	expect("endpoints, then a pod", 0, 1)
	change(time.Second)
	expect("the endpoints", 1, 0)
}

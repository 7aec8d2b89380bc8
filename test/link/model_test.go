package link_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/wire"
)

// check fails the test unless both sides have the same set and no report is lost.
func (w *world) check() {
	want := map[wire.ID]string{}
	var hash wire.Hash
	for id, o := range w.store {
		want[id] = string(o.Data)
		hash.Add(id, o.Version)
	}
	if !maps.Equal(want, w.content) || hash != w.cache.Hash() {
		w.t.Fatalf("sets differ:\nhub   %v\nagent %v", want, w.content)
	}
	for id, o := range w.said {
		if w.taken[id] != o.Version {
			w.t.Fatalf("report lost: hub has version %d of %v, the agent said %d", w.taken[id], id, o.Version)
		}
	}
	for id := range w.allOnce {
		if !w.events[id] {
			w.t.Fatalf("once report %v lost", id)
		}
	}
	if len(w.unsaid) > 0 {
		w.t.Fatalf("once reports never confirmed: %v", w.unsaid)
	}
}

// TestModel checks that, whatever the net does and whichever side restarts when, once it calms down both sets are equal, nothing came
// in from an older session, and no report is lost.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		id := func(k wire.Kind) wire.ID {
			return wire.ID{Kind: k, UID: fmt.Sprint(rapid.IntRange(0, 5).Draw(rt, "uid"))}
		}
		n := func() int { return rapid.IntRange(0, 7).Draw(rt, "which") }
		deliver := func(*rapid.T) { w.deliver(&w.toHub, n(), false, w.hubIn) }
		deliverDown := func(*rapid.T) { w.deliver(&w.toAgent, n(), false, w.agentFrame) }
		burst := func(*rapid.T) {
			for range 6 {
				w.deliver(&w.toHub, 0, false, w.hubIn)
				w.deliver(&w.toAgent, 0, false, w.agentFrame)
				w.applyOne()
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"hub put":        func(*rapid.T) { w.change(id(wire.KindPod), true) },
			"hub put 2":      func(*rapid.T) { w.change(id(wire.KindConfigMap), true) },
			"hub share":      func(*rapid.T) { w.change(id(wire.KindService), true) },
			"hub share 2":    func(*rapid.T) { w.change(id(wire.KindService), true) },
			"hub unshare":    func(*rapid.T) { w.change(id(wire.KindService), false) },
			"hub delete":     func(*rapid.T) { w.change(id(wire.KindPod), false) },
			"report":         func(*rapid.T) { w.report(id(wire.KindPodStatus), false) },
			"report once":    func(*rapid.T) { w.report(wire.ID{Kind: wire.KindEvent}, true) },
			"forget":         func(*rapid.T) { w.forget(id(wire.KindPodStatus)) },
			"deliver up":     deliver,
			"deliver up 2":   deliver,
			"deliver down":   deliverDown,
			"deliver down 2": deliverDown,
			"burst":          burst,
			"burst 2":        burst,
			"duplicate up":   func(*rapid.T) { w.deliver(&w.toHub, n(), true, w.hubIn) },
			"duplicate down": func(*rapid.T) { w.deliver(&w.toAgent, n(), true, w.agentFrame) },
			"drop up":        func(*rapid.T) { w.drop(&w.toHub, n()) },
			"drop down":      func(*rapid.T) { w.drop(&w.toAgent, n()) },
			"apply":          func(*rapid.T) { w.applyOne() },
			"second":         func(*rapid.T) { w.pass(time.Second) },
			"minute":         func(*rapid.T) { w.pass(time.Minute) },
			"cut":            func(*rapid.T) { w.connect() },
			"agent restarts": func(*rapid.T) { w.restartAgent() },
			"cache damaged":  func(*rapid.T) { w.damage(); w.restartAgent() },
			"damaged live":   func(*rapid.T) { w.damage(); w.change(id(wire.KindPod), true) },
			"hub restarts":   func(*rapid.T) { w.restartHub(); w.nudge() },
			"backup":         func(*rapid.T) { w.saveBackup() },
			"restore":        func(*rapid.T) { w.restoreBackup() },
		})
		w.settle()
		w.check()
	})
}

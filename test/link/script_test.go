package link_test

import (
	"fmt"
	"testing"
	"time"

	"petrel.dev/petrel/internal/scripttest"
	"petrel.dev/petrel/internal/wire"
)

// Timelines as text (testdata/*.txt): both sessions against each other. Commands:
//
//	put|delete KIND UID      the hub's desired set changes
//	say|once|forget KIND UID the agent reports, hands over, takes back
//	settle                   the net behaves until nothing more happens
//	pass DURATION            time passes; frames stay where they are
//	drop up|down             all frames under way that way are lost
//	cut                      the connection breaks; the agent dials again
//	restart hub|agent        the process starts anew
//	backup, restore          of the hub's store
//	damage                   the cache loses an object
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(t *testing.T) func([]string) []string {
		var events []string
		w := newWorld(t)
		w.log = func(format string, args ...any) { events = append(events, fmt.Sprintf(format, args...)) }
		t.Cleanup(func() {
			w.settle()
			w.check()
			if len(events) > 0 {
				t.Errorf("after the script: %q", events)
			}
		})
		return func(command []string) []string {
			w.command(command)
			happened := events
			events = nil
			return happened
		}
	})
}

func (w *world) command(f []string) {
	id := func() wire.ID { return wire.ID{Kind: wire.Kind(f[1]), UID: f[2]} }
	switch f[0] {
	case "put", "delete":
		w.change(id(), f[0] == "put")
	case "say", "once":
		w.report(id(), f[0] == "once")
	case "forget":
		w.forget(id())
	case "settle":
		w.settle()
	case "pass":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.pass(d)
	case "drop":
		if f[1] == "up" {
			w.toHub = nil
		} else {
			w.toAgent = nil
		}
	case "cut":
		w.connect()
	case "restart":
		if f[1] == "hub" {
			w.restartHub()
			w.nudge()
		} else {
			w.restartAgent()
		}
	case "backup":
		w.saveBackup()
	case "restore":
		w.restoreBackup()
		w.nudge()
	case "damage":
		w.damage()
	default:
		w.t.Fatalf("no command %q", f[0])
	}
}

func (w *world) storeHash() (h wire.Hash) {
	for id, o := range w.store {
		h.Add(id, o.Version)
	}
	return h
}

func sameOr(a, b wire.Hash) string {
	switch {
	case a == b:
		return "equal"
	case a.IsZero():
		return "empty"
	}
	return "different"
}

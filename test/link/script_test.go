package link_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"petrel.dev/petrel/internal/wire"
)

var update = flag.Bool("update", false, "write the traces in testdata anew")

// Timelines as text: each block of testdata/*.txt is a few commands, "----", and what happens then. Commands:
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
	files, err := filepath.Glob("testdata/*.txt")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			must(t, err)
			var out strings.Builder
			w := newWorld(t)
			w.log = func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
			for block := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n\n") {
				commands, _, _ := strings.Cut(block, "----")
				out.WriteString(strings.TrimSpace(commands) + "\n----\n")
				for line := range strings.Lines(commands) {
					if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
						w.command(strings.Fields(line))
					}
				}
				out.WriteString("\n")
			}
			w.settle()
			w.check()
			got := strings.TrimSpace(out.String()) + "\n"
			if *update {
				must(t, os.WriteFile(file, []byte(got), 0o644))
			}
			if d := cmp.Diff(strings.TrimSpace(string(raw))+"\n", got); d != "" && !*update {
				t.Errorf("the trace has changed (-update writes it anew):\n%s", d)
			}
		})
	}
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

// batchText is a batch in a line, for example "1: +Pod/a@3 -ConfigMap/b".
func batchText(b *wire.Batch) string {
	s := fmt.Sprintf("%d:", b.Seq)
	for _, p := range b.Puts {
		mark := "+"
		if p.Once {
			mark = "!"
		}
		s += fmt.Sprintf(" %s%s/%s@%d", mark, p.Kind, p.UID, p.Version)
	}
	for _, id := range b.Deletes {
		s += fmt.Sprintf(" -%s/%s", id.Kind, id.UID)
	}
	return s
}

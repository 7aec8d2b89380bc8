package objects

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// All subscriptions are served by one goroutine, each in order and with what came before it began. It is there only while
// there is something to deliver.
func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &delivery{}
		n := 0
		change := func() control.Change {
			cm := &corev1.ConfigMap{}
			cm.Name = fmt.Sprint(n)
			n++
			return control.Change{GVK: kube.ConfigMap, New: cm}
		}
		busy := false
		subscribe := func(log *strings.Builder) (*subscription, chan struct{}) {
			ended := make(chan struct{})
			return &subscription{ended: ended, f: func(c control.Change) {
				if busy {
					t.Error("two changes are handed over at once")
				}
				busy = true
				log.WriteString(c.New.GetName() + " ")
				if c.New.GetName() == "3" {
					busy = false
					panic("the subscriber's own")
				}
				busy = false
			}}, ended
		}
		var first, second strings.Builder
		a, endA := subscribe(&first)
		d.add(a, change())
		d.add(a, change())
		synctest.Wait()
		if first.Len() > 0 {
			t.Errorf("%sbefore Subscribe has returned", first.String())
		}
		d.begin(a)
		d.add(a, change())
		b, endB := subscribe(&second)
		d.begin(b)
		both := change()
		d.add(a, both)
		d.add(b, both)
		d.add(b, change())
		synctest.Wait()
		if first.String() != "0 1 2 3 " || second.String() != "3 4 " {
			t.Errorf("handed over %q and %q", first.String(), second.String())
		}

		close(endA)
		d.add(a, change())
		d.add(b, change())
		synctest.Wait()
		if first.String() != "0 1 2 3 " || second.String() != "3 4 6 " {
			t.Errorf("after one has ended: %q and %q", first.String(), second.String())
		}
		close(endB)
		if d.running {
			t.Error("the goroutine is there without anything to deliver")
		}
		var third strings.Builder
		c, endC := subscribe(&third)
		d.begin(c)
		d.add(c, change())
		synctest.Wait()
		if third.String() != "7 " {
			t.Errorf("the next subscription got %q", third.String())
		}
		close(endC)
	})
}

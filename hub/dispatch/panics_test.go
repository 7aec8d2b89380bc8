package dispatch

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// TestAgentPanics checks that the hub knows how many panics a node's agent has contained, until the Node is gone.
func TestAgentPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		say := func(node string, n uint64) {
			done := r.say(node, r.put(wire.KindNodeStatus, "node", node, wire.NodeReport{Panics: n}))
			time.Sleep(time.Minute)
			synctest.Wait()
			if !*done {
				t.Error("the report is not taken")
			}
		}
		expect := func(want map[string]uint64) {
			t.Helper()
			if got := r.in.agentPanics(); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
		say("good", 0) // as an agent that knows nothing of it
		expect(map[string]uint64{})
		say("evil", 3)
		say("good", 1)
		expect(map[string]uint64{"evil": 3, "good": 1})
		say("good", 0) // it has begun anew
		expect(map[string]uint64{"evil": 3})
		if err := r.client.Delete(t.Context(), kube.Node, "", "evil", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(map[string]uint64{})
		if len(r.in.panics) != 0 {
			t.Error("a Node that is gone is kept")
		}
	})
}

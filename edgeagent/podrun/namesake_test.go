package podrun_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestForcedDeletionKeepsOneOfAName has the hub delete a pod by force and make another one of its name for the same node, as a StatefulSet
// does. The later one starts when the earlier one has ended with its grace, not beside it, and an event names what it waits for.
func TestForcedDeletionKeepsOneOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer func() { n.stop() }()
		n.fake.Deaf["main"] = true
		named := func(p *corev1.Pod) { p.Name = "web-0" }
		n.apply(true, aPod("earlier", named))
		n.want("earlier", "Running main#0 running")
		n.apply(true, aPod("later", named), aPod("other"))
		n.want("other", "Running main#0 running")
		time.Sleep(20 * time.Second)
		n.settle()
		n.want("later", "")
		if n.fake.Spec("later", "main").Name != "" {
			t.Error("the later pod has a container while the earlier one runs")
		}
		if e, _ := n.eventCount("WaitingForPredecessor"); e != 1 {
			t.Errorf("%d events say what the pod waits for", e)
		}
		n.stop()
		n.start() // also over a restart of the agent
		n.apply(true, aPod("later", named), aPod("other"))
		n.want("later", "")
		time.Sleep(31 * time.Second)
		n.settle()
		n.want("later", "Running main#0 running")
		if n.manager.Running() != 2 {
			t.Errorf("%d pods are left, want 2", n.manager.Running())
		}
	})
}

// TestLaterOfANameAfterAReboot has a node come back without a link while an earlier pod of a name has not ended yet, and its cache has the
// later one: the earlier one goes, although the hub has not sent all that it wants, and the later one runs.
func TestLaterOfANameAfterAReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		named := func(p *corev1.Pod) { p.Name = "web-0" }
		n.apply(true, aPod("earlier", named))
		n.want("earlier", "Running main#0 running")
		n.stop()
		n.fake.Exit("earlier", "main", 137)
		n.start()
		defer func() { n.stop() }()
		n.apply(false, aPod("later", named))
		n.want("later", "Running main#0 running")
		if n.manager.Running() != 1 {
			t.Error("the earlier pod is left")
		}
	})
}

package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// reasonDark marks a Ready condition that the hub has set to False because of the node alone.
	reasonDark = "NodeDark"
	// perCommit is how many pods' statuses go into one transaction.
	perCommit = 200
)

// Presence knows which nodes have a session with the hub.
type Presence interface {
	// Presence reports whether the node has a session now, and when the node last sent something: zero when it has not
	// since the hub started. When a session is found dead, that may be long ago.
	Presence(node string) (connected bool, lastSeen time.Time)
	// Watch calls f with the name of each node whose presence changes, until ctx ends. f returns quickly.
	Watch(ctx context.Context, f func(node string))
}

// darkness is the second job: which nodes are dark, and what follows for their conditions and for their pods' readiness. Its
// maps are owned by the loop's worker.
type darkness struct {
	client   control.Client
	events   control.Events
	presence Presence
	grace    time.Duration // of silence before a node is dark; more than 0
	// firstSeen is when this process first saw each Node. It counts as a sign of life. An entry goes with its Node.
	firstSeen map[string]time.Time
	// reported holds, of dark nodes only, what they reported of themselves before. returned drops it.
	reported map[string]reported
}

func (d *darkness) forget(node string) {
	delete(d.firstSeen, node)
	delete(d.reported, node)
}

// returned drops what the node had reported before it was dark: its conditions show that again.
func (d *darkness) returned(node string) { delete(d.reported, node) }

// of returns the node's presence, whether the node is dark, and otherwise how long until it will be if it stays silent.
func (d *darkness) of(n *corev1.Node, now time.Time) (presence contact, dark bool, wait time.Duration) {
	if _, ok := d.firstSeen[n.Name]; !ok {
		d.firstSeen[n.Name] = now
	}
	presence = d.contact(n.Name)
	dark, wait = presence.darkAfter(d.grace, now)
	if !dark && !presence.connected && control.NodeDark(n) {
		dark = true // it was dark before the hub started, and has not returned
	}
	return presence, dark, wait
}

func (d *darkness) contact(node string) contact {
	connected, seen := d.presence.Presence(node)
	silent := seen
	if first := d.firstSeen[node]; silent.Before(first) {
		silent = first
	}
	return contact{connected: connected, seen: seen, silent: silent}
}

// writeConditions writes the conditions of a node that has become dark or has returned. It returns the node as it is now, nil
// when it is gone.
func (d *darkness) writeConditions(ctx context.Context, n *corev1.Node, dark bool, since, now time.Time) (*corev1.Node, error) {
	if dark {
		if d.reported[n.Name] == nil {
			d.reported[n.Name] = reported{}
		}
		d.reported[n.Name].merge(n.Status.Conditions)
	}
	conds := conditions(n.Status.Conditions, d.reported[n.Name], dark, since, now)
	if equality.Semantic.DeepEqual(conds, n.Status.Conditions) {
		return n, nil
	}
	was := control.NodeDark(n)
	up := n.DeepCopy()
	up.Status.Conditions = conds
	got, err := d.client.Update(ctx, up, "status")
	if err != nil {
		return nil, control.IgnoreNotFound(err)
	}
	n = got.(*corev1.Node)
	switch {
	case dark && !was:
		d.events.Event(n, corev1.EventTypeWarning, "NodeDark", "Node %s has not been heard of since %s", n.Name, since.UTC().Format(time.RFC3339))
	case !dark && was:
		d.events.Event(n, corev1.EventTypeNormal, "NodeBack", "Node %s is back", n.Name)
	}
	return n, nil
}

// markPods makes the ready pods of a dark node not ready, so that Services leave them out, and undoes exactly that when the node
// has returned. What the node itself reports of a pod replaces either.
func (d *darkness) markPods(ctx context.Context, n *corev1.Node, dark bool, now time.Time) error {
	var writes []control.Write
	flush := func() error {
		if len(writes) == 0 {
			return nil
		}
		w := writes
		writes = nil
		return control.IgnoreNotFound(d.client.Commit(ctx, w))
	}
	for _, p := range podsOn(d.client, n.Name) {
		up := marked(p, dark, now)
		if up == nil {
			continue
		}
		if writes = append(writes, control.Write{Object: up, Old: p, Subresource: "status"}); len(writes) == perCommit {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// marked returns a copy of the pod with the Ready condition that follows from the node's darkness, nil when the pod has it
// already.
func marked(p *corev1.Pod, dark bool, now time.Time) *corev1.Pod {
	c := control.PodCondition(p, corev1.PodReady)
	if c == nil {
		return nil
	}
	set := func(status corev1.ConditionStatus, reason, message string) *corev1.Pod {
		up := p.DeepCopy()
		c := control.PodCondition(up, corev1.PodReady)
		c.Status, c.Reason, c.Message = status, reason, message
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		return up
	}
	switch {
	case dark && c.Status == corev1.ConditionTrue:
		return set(corev1.ConditionFalse, reasonDark, "The pod's node is dark. The pod most likely goes on running.")
	case !dark && notReadyByDarkness(p) && kube.UnmetGates(p) == "": // else the node reports which gate is not met, or a change of the pod comes first
		return set(corev1.ConditionTrue, "", "")
	}
	return nil
}

// notReadyByDarkness reports whether nothing but its node's darkness has made a pod not ready.
func notReadyByDarkness(p *corev1.Pod) bool {
	c := control.PodCondition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionFalse && c.Reason == reasonDark
}

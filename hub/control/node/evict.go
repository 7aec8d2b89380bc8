package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
)

// settling is how long after a start of the hub, or after all nodes were dark, a node may take to reconnect before its
// darkness leads to evictions: longer than the longest pause that an agent makes between two attempts to connect
// (5 minutes).
const settling = 6 * time.Minute

// eviction is the fourth job: pods that do not tolerate a node's NoExecute taints are deleted when their time is up. Its state is
// owned by the loop's worker.
type eviction struct {
	client   control.Client
	events   control.Events
	fleet    *fleet
	start    time.Time                         // of Run, set before the first reconcile
	observed map[string]map[string]observation // by node and taint: see taintAges. An entry goes with its taint
}

func (e *eviction) forget(node string) { delete(e.observed, node) }

// run deletes the pods that the node's NoExecute taints drive out now, and returns when the next is due (0: none).
func (e *eviction) run(ctx context.Context, n *corev1.Node, presence contact, now time.Time) (next time.Duration, err error) {
	age := e.taintAges(n, now)
	if len(e.observed[n.Name]) == 0 {
		return 0, nil
	}
	if control.NodeDark(n) {
		if e.fleet.alone(n.Name) {
			return 0, nil // fleet.saw brings this node up again when another one is seen
		}
		if wait := e.holdOff(presence, now); wait > 0 {
			return wait, nil
		}
	}
	var errs []error
	for _, p := range podsOn(e.client, n.Name) {
		if p.DeletionTimestamp != nil || control.PodFinished(p) {
			continue
		}
		if _, _, bad := autonomy(p, n); bad != nil {
			e.events.Event(p, corev1.EventTypeWarning, "InvalidAutonomy", "%v; the pod's tolerations decide", bad)
		}
		wait, by, ok := evictAt(p, n, age)
		switch {
		case !ok:
		case wait > 0:
			next = soonest(next, wait)
		default:
			errs = append(errs, e.evict(ctx, p, n.Name, by))
		}
	}
	return next, control.JoinErrors(errs...)
}

// evict deletes a pod because of a taint.
func (e *eviction) evict(ctx context.Context, p *corev1.Pod, node, taint string) error {
	deleted, err := control.Evict(ctx, e.client, p, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
	if deleted {
		e.events.Event(p, corev1.EventTypeNormal, "TaintManagerEviction", "Deleting pod %s/%s because of taint %s on node %s", p.Namespace, p.Name, taint, node)
	}
	return err // a conflict is tried again
}

// holdOff returns how much longer a dark node's pods are left alone because it may be the hub that was cut off.
func (e *eviction) holdOff(presence contact, now time.Time) time.Duration {
	since := e.fleet.brightSince()
	if since.Before(e.start) {
		since = e.start
	}
	if presence.seen.After(since) {
		return 0
	}
	return max(0, settling-now.Sub(since))
}

// observation is when this process first saw a taint, and how old it was then.
type observation struct {
	at  time.Time     // with a monotonic reading
	old time.Duration // 0 or more
}

// taintAges returns for how long a NoExecute taint of the node has been there. A wall clock that jumps, as that of a board
// without a battery does, must not evict a fleet: so time passes by this process's own clock, and the time stored in the
// taint counts only for what was before its first observation.
func (e *eviction) taintAges(n *corev1.Node, now time.Time) func(*corev1.Taint) time.Duration {
	was := e.observed[n.Name]
	is := map[string]observation{}
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		k := t.Key + "=" + t.Value
		s, ok := was[k]
		if !ok {
			s = observation{at: now}
			if t.TimeAdded != nil {
				s.old = max(0, now.Sub(t.TimeAdded.Time))
			}
		}
		is[k] = s
	}
	if len(is) == 0 {
		delete(e.observed, n.Name)
	} else {
		e.observed[n.Name] = is
	}
	return func(t *corev1.Taint) time.Duration {
		s := is[t.Key+"="+t.Value]
		return s.old + now.Sub(s.at)
	}
}

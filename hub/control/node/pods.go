package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// reasonDark marks a Ready condition that the hub has set to False because of the node alone.
	reasonDark = "NodeDark"
	// quarantine is how long a pod may be bound to a node that does not exist: Node and pods may be made in any order.
	quarantine = 5 * time.Second
	// settling is how long after a start of the hub, or after all nodes were dark, a node may take to be heard of before
	// its darkness is held against its pods: longer than the longest pause that an agent makes between two attempts
	// to connect (5 minutes).
	settling = 6 * time.Minute
	// perCommit is how many pods' statuses go into one transaction.
	perCommit = 200
)

func (c *Controller) podsOn(node string) []*corev1.Pod {
	return control.Index[*corev1.Pod](c.client, kube.Pod, control.NodeIndex, node)
}

// markPods makes the ready pods of a dark node not ready, so that Services go around them, and takes exactly that back
// when the node has returned; what the node itself says of a pod replaces either.
func (c *Controller) markPods(ctx context.Context, n *corev1.Node, dark bool, now time.Time) error {
	var writes []control.Write
	flush := func() error {
		if len(writes) == 0 {
			return nil
		}
		w := writes
		writes = nil
		return control.IgnoreNotFound(c.client.Commit(ctx, w))
	}
	for _, p := range c.podsOn(n.Name) {
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

// marked is the pod with its Ready condition as the node's darkness wants it, nil when that is so already.
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
	case !dark && c.Status == corev1.ConditionFalse && c.Reason == reasonDark:
		return set(corev1.ConditionTrue, "", "")
	}
	return nil
}

// evict deletes the pods that the node's NoExecute taints drive out now, and tells when the next is due (0: none).
func (c *Controller) evict(ctx context.Context, n *corev1.Node, who contact, now time.Time) (next time.Duration, err error) {
	age := c.taintAges(n, now)
	if len(c.sights[n.Name]) == 0 {
		return 0, nil
	}
	if control.NodeDark(n) {
		if c.alone(n.Name) {
			return 0, nil // nodeKeys brings this node up again when another one is seen
		}
		if wait := c.holdOff(who, now); wait > 0 {
			return wait, nil
		}
	}
	var errs []error
	for _, p := range c.podsOn(n.Name) {
		if p.DeletionTimestamp != nil || control.PodFinished(p) {
			continue
		}
		if _, _, bad := autonomy(p, n); bad != nil {
			c.events.Event(p, corev1.EventTypeWarning, "InvalidAutonomy", "%v; the pod's tolerations decide", bad)
		}
		wait, by, ok := evictAt(p, n, age)
		switch {
		case !ok:
		case wait > 0:
			next = soonest(next, wait)
		default:
			uid := p.UID
			derr := c.client.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
			if derr == nil {
				c.events.Event(p, corev1.EventTypeNormal, "TaintManagerEviction", "Deleting pod %s/%s because of taint %s on node %s", p.Namespace, p.Name, by, n.Name)
			} else if !apierrors.IsConflict(derr) {
				errs = append(errs, control.IgnoreNotFound(derr))
			}
		}
	}
	return next, control.JoinErrors(errs...)
}

// holdOff is how much longer a dark node's pods are left alone because it may be the hub that was away.
func (c *Controller) holdOff(who contact, now time.Time) time.Duration {
	c.mu.Lock()
	since := c.lit
	c.mu.Unlock()
	if since.Before(c.start) {
		since = c.start
	}
	if who.seen.After(since) {
		return 0
	}
	return max(0, settling-now.Sub(since))
}

// sight is when this process first saw a taint, and how old it was then.
type sight struct {
	at  time.Time
	old time.Duration
}

// taintAges tells for how long a NoExecute taint of the node has been there. A wall clock that jumps, as that of a board
// without a battery does, must not evict a fleet: so time passes by this process's own clock, and the time stored in the
// taint counts only for what was before its first sight.
func (c *Controller) taintAges(n *corev1.Node, now time.Time) func(*corev1.Taint) time.Duration {
	was := c.sights[n.Name]
	is := map[string]sight{}
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		k := t.Key + "=" + t.Value
		s, ok := was[k]
		if !ok {
			s = sight{at: now}
			if t.TimeAdded != nil {
				s.old = max(0, now.Sub(t.TimeAdded.Time))
			}
		}
		is[k] = s
	}
	if len(is) == 0 {
		delete(c.sights, n.Name)
	} else {
		c.sights[n.Name] = is
	}
	return func(t *corev1.Taint) time.Duration {
		s := is[t.Key+"="+t.Value]
		return s.old + now.Sub(s.at)
	}
}

// collect removes the pods of a Node that does not exist: nobody is left who could say that they have ended.
func (c *Controller) collect(ctx context.Context, node string) (time.Duration, error) {
	pods := c.podsOn(node)
	if len(pods) == 0 {
		delete(c.missing, node)
		return 0, nil
	}
	since, ok := c.missing[node]
	if !ok {
		since = time.Now()
		c.missing[node] = since
	}
	if wait := quarantine - time.Since(since); wait > 0 {
		return wait, nil
	}
	zero := int64(0)
	return 0, control.InParallel(len(pods), func(i int) error {
		p := pods[i]
		uid := p.UID
		err := c.client.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsConflict(err) {
			return nil
		}
		return control.IgnoreNotFound(err)
	})
}

package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// After a failure the next pod waits firstBackoff, twice as long after each that follows, and at most longestBackoff.
const (
	firstBackoff   = 10 * time.Second
	longestBackoff = 10 * time.Minute
)

// backoff is how often a Job's pods have failed since the last that succeeded, and when last. It is not stored: after a start of
// the hub it is counted from the pods that are still there.
type backoff struct {
	uid      types.UID // of the Job
	failures int       // since the last success
	last     time.Time // when the last of them ended; zero without one
}

// with returns the back-off after further ends, which come in any order.
func (b backoff) with(succeeded, failed []*corev1.Pod) backoff {
	var since time.Time
	for _, p := range succeeded {
		if at := endedAt(p); at.After(since) {
			since = at
		}
	}
	if len(succeeded) > 0 {
		b.failures, b.last = 0, time.Time{}
	}
	for _, p := range failed {
		at := endedAt(p)
		if len(succeeded) > 0 && !at.After(since) {
			continue
		}
		b.failures++
		if at.After(b.last) {
			b.last = at
		}
	}
	return b
}

// wait returns how long it is until the next pod may be made, 0 for now.
func (b backoff) wait(now time.Time) time.Duration { return waitAfter(b.failures, b.last, now) }

func waitAfter(failures int, last, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	pause := min(longestBackoff, firstBackoff<<min(failures-1, 10))
	return max(0, min(pause, last.Add(pause).Sub(now))) // never longer than the pause: a node's clock may be ahead
}

// indexWait returns how long the index of a failed pod has to wait for its next one.
func indexWait(last *corev1.Pod, now time.Time) time.Duration {
	if last == nil {
		return 0
	}
	counted, ignored := failuresOf(last)
	return waitAfter(int(counted)+int(ignored)+1, endedAt(last), now)
}

// endedAt returns when a pod ended. A node's clock may be anything: an end before the pod's creation, or in the future, is taken for
// its creation, which is by the hub's clock. A pod that fails at once so has its pause in any case, and none is longer than it should be.
func endedAt(p *corev1.Pod) time.Time {
	at := reportedEnd(p)
	if at.Before(p.CreationTimestamp.Time) || at.After(time.Now()) {
		return p.CreationTimestamp.Time
	}
	return at
}

// reportedEnd returns when a pod ended, from the first of these that is known: the end of its last container, when it became not
// ready, when its deletion began, its creation.
func reportedEnd(p *corev1.Pod) time.Time {
	if at := containersEnded(p); !at.IsZero() {
		return at
	}
	if c := control.PodCondition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		grace := time.Duration(0)
		if g := p.DeletionGracePeriodSeconds; g != nil {
			grace = kube.Seconds(*g)
		}
		return p.DeletionTimestamp.Add(-grace)
	}
	return p.CreationTimestamp.Time
}

// containersEnded returns when the last container of a pod ended, sidecars included, or zero when not all have an end.
func containersEnded(p *corev1.Pod) time.Time {
	list := slices.Clone(p.Status.ContainerStatuses)
	for _, s := range p.Status.InitContainerStatuses {
		if slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool {
			return c.Name == s.Name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}) {
			list = append(list, s)
		}
	}
	var last time.Time
	for _, s := range list {
		if s.State.Terminated == nil || s.State.Terminated.FinishedAt.IsZero() {
			return time.Time{}
		}
		if at := s.State.Terminated.FinishedAt.Time; at.After(last) {
			last = at
		}
	}
	return last
}

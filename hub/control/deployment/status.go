package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// Reasons of conditions. kubectl rollout status knows ProgressDeadlineExceeded; dashboards know the others.
const (
	reasonUpdated     = "ReplicaSetUpdated"
	reasonCreateError = "ReplicaSetCreateError"
	reasonCreated     = "NewReplicaSetCreated"
	reasonFound       = "FoundNewReplicaSet"
	reasonComplete    = "NewReplicaSetAvailable"
	reasonTimedOut    = "ProgressDeadlineExceeded"
	reasonPaused      = "DeploymentPaused"
	reasonResumed     = "DeploymentResumed"
	// reasonDeferred is Petrel's own: everything is done but what is on dark nodes.
	reasonDeferred = "DeferredOnDarkNodes"
	// reasonFetching is Petrel's own, too: no pod that serves goes before nodes have the new images.
	reasonFetching = "FetchingImages"
)

// status returns the Deployment's status from its ReplicaSets.
func (r *rollout) status() appsv1.DeploymentStatus {
	s := appsv1.DeploymentStatus{
		ObservedGeneration: r.d.Generation,
		CollisionCount:     r.d.Status.CollisionCount,
		Conditions:         slices.Clone(r.d.Status.Conditions),
	}
	var total, had, ready, available, terminating int64
	known := len(r.all()) > 0
	for _, rs := range r.all() {
		total += r.size[rs.UID]
		had += int64(rs.Status.Replicas)
		ready += int64(rs.Status.ReadyReplicas)
		available += int64(rs.Status.AvailableReplicas)
		if t := rs.Status.TerminatingReplicas; t != nil {
			terminating += int64(*t)
		} else {
			known = false
		}
	}
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas = field(had), field(ready), field(available)
	if known {
		s.TerminatingReplicas = new(field(terminating))
	}
	if r.current != nil {
		s.UpdatedReplicas = r.current.Status.Replicas
	}
	s.UnavailableReplicas = field(total - available)
	_, unavailable := bounds(r.d)
	if available >= r.want-unavailable {
		r.set(&s, appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		r.set(&s, appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
	r.failure(&s)
	r.pauseCondition(&s)
	return s
}

// pauseCondition restarts the progress deadline when a Deployment is paused or resumed.
func (r *rollout) pauseCondition(s *appsv1.DeploymentStatus) {
	c := condition(s, appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || c != nil && c.Reason == reasonTimedOut {
		return
	}
	was := c != nil && c.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !was:
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !r.d.Spec.Paused && was:
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	}
}

// failure copies a ReplicaSet's failure to the Deployment, the current one's before all others.
func (r *rollout) failure(s *appsv1.DeploymentStatus) {
	for _, rs := range slices.Backward(r.all()) {
		if c := kube.FindCondition(rs.Status.Conditions, appsv1.ReplicaSetReplicaFailure); c != nil {
			r.set(s, appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message)
			return
		}
	}
	unset(s, appsv1.DeploymentReplicaFailure)
}

// progress sets the Progressing condition, and returns when the deadline is due (0: there is none to wait for).
func (r *rollout) progress(s *appsv1.DeploymentStatus) time.Duration {
	if !hasDeadline(r.d) {
		unset(s, appsv1.DeploymentProgressing)
		return 0
	}
	c := condition(s, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonComplete && s.Replicas == s.UpdatedReplicas {
		return 0 // an old rollout's success; pods that come and go afterwards are no rollout
	}
	name := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.current != nil {
		name = fmt.Sprintf("ReplicaSet %q", r.current.Name)
	}
	deadline := kube.Seconds(*r.d.Spec.ProgressDeadlineSeconds)
	switch {
	case complete(r.d, s):
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonComplete, name+" has successfully progressed.")
		return 0
	case r.onlyDarkAreMissing():
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonDeferred, fmt.Sprintf(
			"%s is rolled out on all nodes in reach; %d pods wait for dark nodes to come back.", name, r.missingOnDark()))
		return 0
	case r.fetching:
		if c == nil || c.Reason != reasonFetching {
			place(s, r.now, appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonFetching, name+" waits until the nodes of old pods have its images.")
		}
		return 0
	case r.stages != nil && r.stages.Waiting:
		if c == nil || c.Reason != reasonStaged {
			place(s, r.now, appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonStaged, name+" waits: the condition "+kube.RolloutCondition+" says for what.")
		}
		return 0
	case c == nil && r.current != nil:
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", r.current.Name))
	case c != nil && (c.Reason == reasonDeferred || c.Reason == reasonComplete || c.Reason == reasonStaged || c.Reason == reasonFetching) || advanced(&r.d.Status, s):
		r.renew(s, name+" is progressing.")
	case c != nil && c.Reason == reasonTimedOut:
		return 0
	case c != nil && !r.now.Before(c.LastUpdateTime.Add(deadline)):
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, name+" has timed out progressing.")
		return 0
	}
	if c = condition(s, appsv1.DeploymentProgressing); c != nil {
		return max(time.Millisecond, c.LastUpdateTime.Add(deadline).Sub(r.now))
	}
	return 0
}

// renew notes progress: lastUpdateTime moves even when the condition was the same before.
func (r *rollout) renew(s *appsv1.DeploymentStatus, message string) {
	place(s, r.now, appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, message)
}

// advanced reports whether there are more pods updated, ready or available, or fewer old ones, than in the last status.
func advanced(before, now *appsv1.DeploymentStatus) bool {
	return now.UpdatedReplicas > before.UpdatedReplicas ||
		now.Replicas-now.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		now.ReadyReplicas > before.ReadyReplicas ||
		now.AvailableReplicas > before.AvailableReplicas
}

// complete reports whether all replicas are updated and available and no old ones are left: kubectl rollout status waits for it.
func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	n := replicas(d.Spec.Replicas)
	return int64(s.UpdatedReplicas) == n && int64(s.Replicas) == n && int64(s.AvailableReplicas) == n && s.ObservedGeneration >= d.Generation
}

// onlyDarkAreMissing reports whether all that can be done without the dark nodes is done.
func (r *rollout) onlyDarkAreMissing() bool {
	return r.current != nil && r.missingOnDark() > 0 && r.oldLive() == 0 &&
		r.sizeOf(r.current) == r.goal() && r.settled() == r.goal()
}

// missingOnDark returns how many replicas are on dark nodes: deferred old ones, and those of the current ReplicaSet.
func (r *rollout) missingOnDark() int64 {
	n := r.allDeferred()
	if r.current != nil {
		n += min(r.dark[r.current.UID], r.sizeOf(r.current))
	}
	return n
}

// hasDeadline reports whether a rollout may fail for lack of progress; the largest number means that it may not, as in Kubernetes.
func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	return kube.FindCondition(s.Conditions, t)
}

func (r *rollout) set(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	set(s, r.now, t, status, reason, message)
}

// set puts a condition in place; one with the same status and reason stays as it is, times and message included.
func set(s *appsv1.DeploymentStatus, now time.Time, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	if c := condition(s, t); c != nil && c.Status == status && c.Reason == reason {
		return
	}
	place(s, now, t, status, reason, message)
}

// place puts a condition at the end of the list, as Kubernetes' deployment controller does; lastUpdateTime is now.
func place(s *appsv1.DeploymentStatus, now time.Time, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	at := metav1.NewTime(now.Truncate(time.Second))
	c := appsv1.DeploymentCondition{Type: t, Status: status, LastUpdateTime: at, LastTransitionTime: at, Reason: reason, Message: message}
	kube.KeepTransition(s.Conditions, &c)
	s.Conditions = append(kube.RemoveCondition(s.Conditions, t), c)
}

func unset(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = kube.RemoveCondition(s.Conditions, t)
}

package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// fillStatus sets what the status says about pods that have not ended, and about indexes.
func (s *step) fillStatus() {
	st := &s.plan.status
	ready := int32(0)
	for _, p := range s.pods.Active {
		if control.PodReady(p) {
			ready++
		}
	}
	for _, gone := range [][]*corev1.Pod{s.plan.drop, s.plan.stop} {
		for _, p := range gone {
			if control.PodReady(p) {
				ready--
			}
		}
	}
	terminating := int32(len(s.pods.Ending) + len(s.plan.drop) + len(s.plan.stop))
	st.Active, st.Ready, st.Terminating = int32(s.active()), &ready, &terminating
	if !s.indexed {
		return
	}
	st.CompletedIndexes, st.Succeeded = s.done.String(), int32(s.done.size())
	if s.perIndex {
		failed := s.lost.String()
		st.FailedIndexes = &failed
	}
}

// noteSuspension sets the condition Suspended of a Job that is not over. A Job that is resumed starts anew: its deadline is for
// the time that it is active without a pause.
func (s *step) noteSuspension() {
	st := &s.plan.status
	was := kube.FindCondition(st.Conditions, batchv1.JobSuspended)
	switch is := was != nil && was.Status == corev1.ConditionTrue; {
	case s.suspended() && !is:
		st.Conditions = kube.SetCondition(st.Conditions, *condition(batchv1.JobSuspended, "JobSuspended", "Job suspended", s.now))
		st.StartTime = nil
		s.plan.events = append(s.plan.events, event{corev1.EventTypeNormal, "Suspended", "Job suspended"})
	case !s.suspended() && is:
		c := condition(batchv1.JobSuspended, "JobResumed", "Job resumed", s.now)
		c.Status = corev1.ConditionFalse
		st.Conditions = kube.SetCondition(st.Conditions, *c)
		st.StartTime = stamp(s.now)
		s.plan.events = append(s.plan.events, event{corev1.EventTypeNormal, "Resumed", "Job resumed"})
		if left, ok := s.untilDeadline(); ok {
			s.lookAgain(left)
		}
	}
}

// conclude brings a Job that is over to its end, in two writes: the interim condition (SuccessCriteriaMet, FailureTarget) says how
// it ends; Complete or Failed follows when all its pods are counted and none is left that could still run.
func (s *step) conclude(over *batchv1.JobCondition, more bool) {
	st := &s.plan.status
	if more {
		s.lookAgain(time.Nanosecond)
	}
	if over == nil {
		return
	}
	if !kube.IsConditionTrue(s.job.Status.Conditions, over.Type) {
		st.Conditions = kube.SetCondition(st.Conditions, *over)
		s.lookAgain(time.Nanosecond)
		return
	}
	if len(s.plan.count) > 0 || st.Active > 0 || *st.Terminating > 0 {
		return // each of these pods queues the Job again
	}
	end := condition(batchv1.JobFailed, over.Reason, over.Message, s.now)
	if over.Type == batchv1.JobSuccessCriteriaMet {
		end.Type = batchv1.JobComplete
		at := end.LastTransitionTime
		st.CompletionTime = &at
		if s.completions >= 0 && int(st.Succeeded) > s.completions {
			s.plan.events = append(s.plan.events, event{corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached"})
		}
		s.plan.events = append(s.plan.events, event{corev1.EventTypeNormal, "Completed", "Job completed"})
	} else {
		s.plan.events = append(s.plan.events, event{corev1.EventTypeWarning, end.Reason, end.Message})
	}
	st.Conditions = kube.SetCondition(st.Conditions, *end)
	s.plan.after = 0
}

// condition returns a condition that has just become True.
func condition(t batchv1.JobConditionType, reason, message string, now time.Time) *batchv1.JobCondition {
	at := *stamp(now)
	return &batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastProbeTime: at, LastTransitionTime: at, Reason: reason, Message: message}
}

// stamp returns a time as it is stored, in whole seconds: what is read back equals it.
func stamp(t time.Time) *metav1.Time {
	at := metav1.NewTime(t).Rfc3339Copy()
	return &at
}

// finished reports whether a Job has its last condition: nothing is done for it any more.
func finished(j *batchv1.Job) bool {
	return kube.IsConditionTrue(j.Status.Conditions, batchv1.JobComplete) || kube.IsConditionTrue(j.Status.Conditions, batchv1.JobFailed)
}

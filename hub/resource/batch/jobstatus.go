package batch

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/batch/validation"
)

// statusOptions decides which of upstream's checks a new status of a job has to pass. A controller that is not Petrel's
// may write it (spec.managedBy), so it is checked like any input, but only where it changes: the rest of a status that is wrong already can
// still be updated.
func statusOptions(j, old *batch.Job) validation.JobStatusValidationOptions {
	now, was := &j.Status, &old.Status
	isTrue := func(s *batch.JobStatus, t batch.JobConditionType) bool {
		return validation.IsConditionTrue(s.Conditions, t)
	}
	turned := func(t batch.JobConditionType) bool { return isTrue(now, t) != isTrue(was, t) }

	indexed := j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batch.IndexedCompletion
	finished := validation.IsJobFinished(j) != validation.IsJobFinished(old)
	complete := validation.IsJobComplete(j) != validation.IsJobComplete(old)
	failed := validation.IsJobFailed(j) != validation.IsJobFailed(old)
	completedIndexes := now.CompletedIndexes != was.CompletedIndexes
	failedIndexes := !same(now.FailedIndexes, was.FailedIndexes)
	active := now.Active != was.Active
	ready := !same(now.Ready, was.Ready)
	started := !apiequality.Semantic.DeepEqual(now.StartTime, was.StartTime)
	ended := !apiequality.Semantic.DeepEqual(now.CompletionTime, was.CompletionTime)
	// Nothing has to run, so it may be over before it has begun.
	nothingToDo := j.Spec.Suspend != nil && *j.Spec.Suspend && j.Spec.Completions != nil && *j.Spec.Completions == 0
	resumes := isTrue(was, batch.JobSuspended) && validation.IsConditionFalse(now.Conditions, batch.JobSuspended)

	return validation.JobStatusValidationOptions{
		// An indexed job whose completions equal its parallelism can be made smaller.
		RejectDecreasingSucceededCounter:             !indexed || !same(j.Spec.Completions, j.Spec.Parallelism),
		RejectDecreasingFailedCounter:                true,
		RejectDisablingTerminalCondition:             true,
		RejectMutatingCompletionTime:                 true,
		AllowForSuccessCriteriaMetInExtendedScope:    true,
		RejectInvalidCompletedIndexes:                completedIndexes,
		RejectCompletedIndexesForNonIndexedJob:       completedIndexes,
		RejectInvalidFailedIndexes:                   failedIndexes,
		RejectFailedIndexesForNoBackoffLimitPerIndex: failedIndexes,
		RejectFailedIndexesOverlappingCompleted:      failedIndexes || completedIndexes,
		RejectFailedJobWithoutFailureTarget:          failed || failedIndexes,
		RejectCompleteJobWithoutSuccessCriteriaMet:   complete || turned(batch.JobSuccessCriteriaMet),
		RejectCompleteJobWithFailedCondition:         complete || failed,
		RejectCompleteJobWithFailureTargetCondition:  complete || turned(batch.JobFailureTarget),
		RejectCompleteJobWithoutCompletionTime:       complete || ended,
		RejectNotCompleteJobWithCompletionTime:       complete || ended,
		RejectCompletionTimeBeforeStartTime:          started || ended,
		RejectStartTimeUpdateForUnsuspendedJob:       started && !resumes,
		RejectFinishedJobWithoutStartTime:            (finished || started) && !nothingToDo,
		RejectFinishedJobWithActivePods:              finished || active,
		RejectFinishedJobWithTerminatingPods:         finished || !same(now.Terminating, was.Terminating),
		RejectFinishedJobWithUncountedTerminatedPods: finished || !apiequality.Semantic.DeepEqual(now.UncountedTerminatedPods, was.UncountedTerminatedPods),
		RejectMoreReadyThanActivePods:                ready || active,
	}
}

// same reports whether both are nil, or point to equal values.
func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

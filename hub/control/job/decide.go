package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// maxCounted bounds how many pods one transaction counts, so that it holds up other writers for milliseconds only.
const maxCounted = 200

// view is a Job with its pods at one moment: all that decide reads.
type view struct {
	job     *batchv1.Job // not finished; shared, read-only
	pods    podset.Claimed
	backoff backoff // after all pods that are counted
	now     time.Time
	frozen  bool // its namespace is being deleted: no pod can be made
}

// plan is what one sync does, in the order of its fields.
type plan struct {
	drop   []*corev1.Pod     // active pods that are too many: they lose the finalizer, so that they are not counted, and are deleted
	create []*corev1.Pod     // new pods
	status batchv1.JobStatus // counts what count holds; a copy
	count  []*corev1.Pod     // pods that lose the finalizer in the transaction that writes the status
	stop   []*corev1.Pod     // active pods of a Job that is over: they are counted, and then deleted
	events []event           // to record once the status is written
	memory backoff           // the back-off to keep once the status is written
	after  time.Duration     // when to look again, 0 for after the next change
}

// event is an Event about the Job.
type event struct{ kind, reason, message string }

// step works out a plan. Its fields but plan are set by tally and do not change afterwards.
type step struct {
	view
	plan
	spec        *batchv1.JobSpec
	indexed     bool
	perIndex    bool                // it has a backoffLimitPerIndex
	onlyFailed  bool                // a pod is replaced, and counted as failed, only when it has ended
	completions int                 // how many are wanted; -1 for "any one"
	known       map[types.UID]bool  // pods that an earlier status lists as ended and not yet counted
	succeeded   []*corev1.Pod       // not counted before
	failed      []*corev1.Pod       // not counted before, ignored failures included
	nSucceeded  int                 // with succeeded
	nFailed     int                 // with failed, without ignored failures
	done        indexSet            // indexes that succeeded
	lost        indexSet            // indexes that failed for good
	waiting     map[int]*corev1.Pod // by index: the last failed pod, which stays until another follows it and takes its count over
}

// decide returns what to do for a Job.
func decide(v view) plan {
	s := tally(v)
	s.plan.memory = v.backoff.with(s.succeeded, s.failed)
	if s.plan.status.StartTime == nil && !s.suspended() {
		s.plan.status.StartTime = stamp(v.now)
	}
	over := s.outcome()
	switch {
	case over != nil:
	case s.job.DeletionTimestamp == nil:
		s.manage()
		if over = s.completed(); over == nil {
			s.noteSuspension()
		}
	default:
		over = s.completed()
	}
	more := s.countPods(over)
	s.fillStatus()
	s.conclude(over, more)
	return s.plan
}

// tally finds what has ended since the last sync, and what has been reached with it.
func tally(v view) *step {
	spec := &v.job.Spec
	s := &step{view: v, spec: spec, completions: -1, known: map[types.UID]bool{}}
	s.indexed = spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion
	s.perIndex = spec.BackoffLimitPerIndex != nil
	s.onlyFailed = spec.PodFailurePolicy != nil || spec.PodReplacementPolicy != nil && *spec.PodReplacementPolicy == batchv1.Failed
	if spec.Completions != nil {
		s.completions = int(*spec.Completions)
	}
	status := v.job.Status.DeepCopy()
	if u := status.UncountedTerminatedPods; u != nil { // of another controller: here a pod is counted when it is listed
		for _, uid := range slices.Concat(u.Succeeded, u.Failed) {
			s.known[uid] = true
		}
		status.Succeeded += int32(len(u.Succeeded))
		status.Failed += int32(len(u.Failed))
	}
	status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	s.plan.status = *status
	for _, p := range s.all() {
		switch {
		case !tracked(p) || s.known[p.UID] || !s.validIndex(p):
		case p.Status.Phase == corev1.PodSucceeded:
			s.succeeded = append(s.succeeded, p)
		case s.hasFailed(p):
			s.failed = append(s.failed, p)
		}
	}
	s.nSucceeded, s.nFailed = int(status.Succeeded)+len(s.succeeded), int(status.Failed)
	for _, p := range s.failed {
		if judge(spec.PodFailurePolicy, p).action != batchv1.PodFailurePolicyActionIgnore {
			s.nFailed++
		}
	}
	if s.indexed {
		s.tallyIndexes()
	}
	return s
}

func (s *step) tallyIndexes() {
	s.done = parseIndexes(s.job.Status.CompletedIndexes, s.completions).union(indexesOf(indexes(s.succeeded)))
	s.nSucceeded = s.done.size()
	if !s.perIndex {
		return
	}
	if was := s.job.Status.FailedIndexes; was != nil {
		s.lost = parseIndexes(*was, s.completions)
	}
	var lost []int
	for _, p := range s.failed {
		v := judge(s.spec.PodFailurePolicy, p)
		before, _ := failuresOf(p)
		if v.action == batchv1.PodFailurePolicyActionFailIndex || v.action != batchv1.PodFailurePolicyActionIgnore && before >= *s.spec.BackoffLimitPerIndex {
			lost = append(lost, indexOf(p))
		}
	}
	s.lost = s.lost.union(indexesOf(lost))
	busy := indexesOf(indexes(s.pods.Active)).union(s.done).union(s.lost)
	s.waiting = map[int]*corev1.Pod{}
	for _, p := range s.failed {
		i := indexOf(p)
		if !busy.has(i) && follows(p, s.waiting[i]) {
			s.waiting[i] = p
		}
	}
}

// follows reports whether p is a later failure of its index than last, which may be nil.
func follows(p, last *corev1.Pod) bool {
	if last == nil {
		return true
	}
	a, b := failuresOf(p)
	c, d := failuresOf(last)
	return a+b >= c+d && !endedAt(p).Before(endedAt(last))
}

// outcome returns the condition that ends the Job, as it is stored or as it is now reached, or nil. An outcome never changes.
func (s *step) outcome() *batchv1.JobCondition {
	for _, t := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget} {
		if c := kube.FindCondition(s.job.Status.Conditions, t); c != nil && c.Status == corev1.ConditionTrue {
			return c.DeepCopy()
		}
	}
	for _, p := range s.all() {
		if !s.hasFailed(p) {
			continue
		}
		if v := judge(s.spec.PodFailurePolicy, p); v.action == batchv1.PodFailurePolicyActionFailJob {
			return condition(batchv1.JobFailureTarget, batchv1.JobReasonPodFailurePolicy, v.message, s.now)
		}
	}
	if limit := s.backoffLimit(); s.nFailed > limit || s.restartedTooOften(limit) {
		return condition(batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit", s.now)
	}
	if left, ok := s.untilDeadline(); ok && left <= 0 {
		return condition(batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline", s.now)
	} else if ok {
		s.lookAgain(left)
	}
	if s.perIndex {
		switch n := s.lost.size(); {
		case s.spec.MaxFailedIndexes != nil && n > int(*s.spec.MaxFailedIndexes):
			return condition(batchv1.JobFailureTarget, batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes", s.now)
		case n > 0 && n+s.done.size() >= s.completions:
			return condition(batchv1.JobFailureTarget, batchv1.JobReasonFailedIndexes, "Job has failed indexes", s.now)
		}
	}
	if s.indexed {
		if why := succeedsBy(s.spec.SuccessPolicy, s.done, s.completions); why != "" {
			return condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, why, s.now)
		}
	}
	return nil
}

// completed returns the condition of a Job whose completions are reached and whose pods have all ended, or nil.
func (s *step) completed() *batchv1.JobCondition {
	if s.active() > 0 || s.completions < 0 && s.nSucceeded == 0 || s.nSucceeded < s.completions {
		return nil
	}
	return condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods", s.now)
}

// manage decides which pods to make and which to drop. One sync does either.
func (s *step) manage() {
	active := len(s.pods.Active)
	if s.suspended() {
		s.plan.drop = s.pods.Active
		return
	}
	want := s.parallelism()
	switch {
	case s.completions >= 0:
		want = max(0, min(want, s.completions-s.nSucceeded))
	case s.nSucceeded > 0: // one success is enough; what runs may end
		want = active
	}
	if s.plan.drop = s.surplus(max(0, active-want)); len(s.plan.drop) > 0 {
		s.plan.drop = s.plan.drop[:min(len(s.plan.drop), podset.MaxBurst)]
		return
	}
	missing := want - active
	if s.onlyFailed {
		missing -= len(s.pods.Ending)
	}
	if missing <= 0 || s.frozen {
		return
	}
	missing = min(missing, podset.MaxBurst)
	if !s.perIndex {
		if wait := s.plan.memory.wait(s.now); wait > 0 {
			s.lookAgain(wait)
			return
		}
	}
	if !s.indexed {
		for range missing {
			s.plan.create = append(s.plan.create, newPod(s.job))
		}
		return
	}
	for _, i := range s.pending(missing) {
		if wait := indexWait(s.waiting[i], s.now); wait > 0 {
			s.lookAgain(wait)
			continue
		}
		s.plan.create = append(s.plan.create, newIndexedPod(s.job, i, s.waiting[i]))
	}
}

// pending returns the n lowest indexes that have no pod and no result, or fewer.
func (s *step) pending(n int) []int {
	taken := s.done.union(s.lost).union(indexesOf(indexes(s.pods.Active)))
	if s.onlyFailed {
		taken = taken.union(indexesOf(indexes(s.pods.Ending)))
	}
	return taken.missing(n, s.completions)
}

// surplus returns active pods to drop, at least n: of an indexed Job all that are of no index or of one that is not wanted, and all
// but one of each index.
func (s *step) surplus(n int) []*corev1.Pod {
	if !s.indexed {
		return podset.Victims(podset.Candidates(s.pods.Active, s.pods.Active, nil), n, s.now)
	}
	byIndex := map[int][]*corev1.Pod{}
	var drop, keep []*corev1.Pod
	for _, p := range s.pods.Active {
		if !s.validIndex(p) {
			drop = append(drop, p)
			continue
		}
		byIndex[indexOf(p)] = append(byIndex[indexOf(p)], p)
	}
	for _, same := range byIndex {
		victims := podset.Victims(podset.Candidates(same, same, nil), len(same)-1, s.now)
		drop = append(drop, victims...)
		for _, p := range same {
			if !slices.Contains(victims, p) {
				keep = append(keep, p)
			}
		}
	}
	if n <= len(drop) {
		return drop
	}
	return append(drop, podset.Victims(podset.Candidates(keep, keep, nil), n-len(drop), s.now)...)
}

// countPods chooses the pods that this sync counts, and counts them in the status. It reports whether there are more. When the
// Job is over, pods that are still active are counted too, as failed if the Job has failed, and are deleted afterwards.
func (s *step) countPods(over *batchv1.JobCondition) (more bool) {
	dropped := make(map[*corev1.Pod]bool, len(s.plan.drop)) // already without the finalizer when the status is written
	for _, p := range s.plan.drop {
		dropped[p] = true
	}
	failedAll := over != nil && over.Type == batchv1.JobFailureTarget
	for _, p := range s.all() {
		stop := over != nil && control.PodActive(p)
		if !tracked(p) || dropped[p] {
			if stop && !dropped[p] {
				s.plan.stop = append(s.plan.stop, p)
			}
			continue
		}
		failed := s.hasFailed(p)
		if !(s.job.DeletionTimestamp != nil || over != nil || p.Status.Phase == corev1.PodSucceeded || failed && s.waiting[indexOf(p)] != p) {
			continue
		}
		if len(s.plan.count) == maxCounted {
			return true
		}
		s.plan.count = append(s.plan.count, p)
		if stop {
			s.plan.stop = append(s.plan.stop, p)
		}
		switch {
		case s.known[p.UID] || !s.validIndex(p):
		case p.Status.Phase == corev1.PodSucceeded:
			s.plan.status.Succeeded++
		case (failed || failedAll) && judge(s.spec.PodFailurePolicy, p).action != batchv1.PodFailurePolicyActionIgnore:
			s.plan.status.Failed++
		}
	}
	return false
}

// all returns the Job's pods. Those that an earlier status lists come first: it counts them already, so their finalizers go first.
func (s *step) all() []*corev1.Pod {
	all := slices.Concat(s.pods.Active, s.pods.Ending, s.pods.Ended)
	if len(s.known) > 0 {
		slices.SortStableFunc(all, func(a, b *corev1.Pod) int { return rank(s.known[a.UID]) - rank(s.known[b.UID]) })
	}
	return all
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// hasFailed reports whether a pod counts as failed. One that is being deleted does, because it may never report an end. Where pods are
// replaced only when they have ended, it does only if it has no node, which alone could report its end.
func (s *step) hasFailed(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	return p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded && (!s.onlyFailed || p.Spec.NodeName == "")
}

func (s *step) validIndex(p *corev1.Pod) bool {
	if !s.indexed {
		return true
	}
	i := indexOf(p)
	return i != noIndex && i < s.completions
}

// restartedTooOften reports whether containers that are restarted in place have used up the limit.
func (s *step) restartedTooOften(limit int) bool {
	if s.spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := 0
	for _, p := range s.all() {
		if control.PodFinished(p) {
			continue
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			restarts += int(c.RestartCount)
		}
	}
	return restarts >= max(1, limit)
}

// untilDeadline returns how long the Job may still be active; ok is false when there is no deadline, or it does not run.
func (s *step) untilDeadline() (left time.Duration, ok bool) {
	start := s.plan.status.StartTime
	if s.spec.ActiveDeadlineSeconds == nil || start == nil || s.suspended() {
		return 0, false
	}
	return start.Add(kube.Seconds(*s.spec.ActiveDeadlineSeconds)).Sub(s.now), true
}

func (s *step) lookAgain(after time.Duration) {
	if s.plan.after == 0 || after < s.plan.after {
		s.plan.after = after
	}
}

func (s *step) suspended() bool { return s.spec.Suspend != nil && *s.spec.Suspend }

// active returns how many pods are active once the plan is carried out.
func (s *step) active() int {
	return len(s.pods.Active) - len(s.plan.drop) - len(s.plan.stop) + len(s.plan.create)
}

func (s *step) parallelism() int {
	if s.spec.Parallelism == nil {
		return 1
	}
	return int(*s.spec.Parallelism)
}

func (s *step) backoffLimit() int {
	if s.spec.BackoffLimit == nil {
		return 6
	}
	return int(*s.spec.BackoffLimit)
}

// tracked reports whether a pod has still to be counted.
func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func indexes(pods []*corev1.Pod) []int {
	out := make([]int, 0, len(pods))
	for _, p := range pods {
		if i := indexOf(p); i != noIndex {
			out = append(out, i)
		}
	}
	return out
}

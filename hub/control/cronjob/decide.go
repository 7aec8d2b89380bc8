package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// plan is what one reconcile does, in the order of its fields.
type plan struct {
	events  []event               // to record first
	expired []*batchv1.Job        // finished Jobs beyond the limits of the history: they are deleted
	replace []*batchv1.Job        // Jobs that run and make room for the new one: they are deleted
	start   *batchv1.Job          // the Job that is due, nil for none
	at      metav1.Time           // for when it was due
	status  batchv1.CronJobStatus // without the new Job; a copy
	after   time.Duration         // when the next one is due, 0 for never
}

// event is an Event about the CronJob.
type event struct{ kind, reason, message string }

func (p *plan) note(kind, reason, format string, args ...any) {
	p.events = append(p.events, event{kind, reason, fmt.Sprintf(format, args...)})
}

// decide returns what to do for a CronJob with its Jobs. With onlyNext, which is for a new schedule, no Job is started for a time that
// has passed already.
func decide(cj *batchv1.CronJob, jobs []*batchv1.Job, now time.Time, onlyNext bool) plan {
	p := plan{status: *cj.Status.DeepCopy()}
	p.expire(cj, jobs)
	p.review(jobs)
	if cj.DeletionTimestamp != nil {
		return p
	}
	loc, err := zone(cj)
	if err != nil {
		p.note(corev1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q: %s", *cj.Spec.TimeZone, err)
		return p
	}
	if cj.Spec.Suspend != nil && *cj.Spec.Suspend {
		return p
	}
	schedule, zoned, err := parse(cj)
	if zoned {
		p.note(corev1.EventTypeWarning, "UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", cj.Spec.Schedule)
	}
	if err != nil {
		p.note(corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err)
		return p
	}
	at, missed, err := start(cj, schedule, now)
	if err != nil {
		p.note(corev1.EventTypeWarning, "InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err)
		return p
	}
	p.after = untilNext(cj, schedule, now)
	if at.IsZero() || onlyNext {
		return p
	}
	if missed > manyMissed {
		p.note(corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	p.begin(cj, jobs, at, now, loc)
	return p
}

// begin decides whether the Job that was due at a time is started.
func (p *plan) begin(cj *batchv1.CronJob, jobs []*batchv1.Job, at, now time.Time, loc *time.Location) {
	if d := cj.Spec.StartingDeadlineSeconds; d != nil && at.Add(kube.Seconds(*d)).Before(now) {
		p.note(corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", at.UTC().Format(time.RFC1123Z))
		return
	}
	job := newJob(cj, at, loc)
	if last := cj.Status.LastScheduleTime; last != nil && last.Time.Equal(at) ||
		slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.Name == job.Name }) {
		return // it is started already
	}
	switch {
	case len(p.status.Active) == 0:
	case cj.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent:
		p.note(corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
		return
	case cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent:
		for _, j := range jobs {
			if active(&p.status, j.UID) {
				p.replace = append(p.replace, j)
			}
		}
	}
	p.start, p.at = job, metav1.NewTime(at)
}

// expire chooses the finished Jobs beyond the limits: those that started first.
func (p *plan) expire(cj *batchv1.CronJob, jobs []*batchv1.Job) {
	for _, h := range []struct {
		end   batchv1.JobConditionType
		limit *int32
	}{{batchv1.JobComplete, cj.Spec.SuccessfulJobsHistoryLimit}, {batchv1.JobFailed, cj.Spec.FailedJobsHistoryLimit}} {
		if h.limit == nil {
			continue
		}
		var ended []*batchv1.Job
		for _, j := range jobs {
			if j.DeletionTimestamp == nil && finish(j) == h.end {
				ended = append(ended, j)
			}
		}
		slices.SortFunc(ended, byStart)
		p.expired = append(p.expired, ended[:max(0, len(ended)-int(*h.limit))]...)
	}
}

// byStart sorts Jobs by when they started; those that never did come last.
func byStart(a, b *batchv1.Job) int {
	switch s, t := a.Status.StartTime, b.Status.StartTime; {
	case s == nil && t != nil:
		return 1
	case s != nil && t == nil:
		return -1
	case s != nil && !s.Equal(t):
		return s.Compare(t.Time)
	}
	return cmp.Compare(a.Name, b.Name)
}

// review brings the list of active Jobs and the time of the last success up to what the Jobs are.
func (p *plan) review(jobs []*batchv1.Job) {
	there := map[types.UID]bool{}
	for _, j := range jobs {
		there[j.UID] = true
		listed, end := active(&p.status, j.UID), finish(j)
		switch {
		case !listed && end == "":
			p.note(corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
		case listed && end != "":
			p.note(corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end)
			drop(&p.status, j.UID)
		}
		if at := j.Status.CompletionTime; end == batchv1.JobComplete && at != nil && (p.status.LastSuccessfulTime == nil || at.After(p.status.LastSuccessfulTime.Time)) {
			p.status.LastSuccessfulTime = at.DeepCopy()
		}
	}
	for _, r := range slices.Clone(p.status.Active) {
		if !there[r.UID] {
			p.note(corev1.EventTypeNormal, "MissingJob", "Active job went missing: %v", r.Name)
			drop(&p.status, r.UID)
		}
	}
}

// newJob returns the Job of a time. Its name follows from the time, so that it is made once only.
func newJob(cj *batchv1.CronJob, at time.Time, loc *time.Location) *batchv1.Job {
	t := cj.Spec.JobTemplate.DeepCopy()
	annotations := maps.Clone(t.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(loc).Format(time.RFC3339)
	return &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: batchv1.SchemeGroupVersion.String(), Kind: kube.Job.Kind},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cj.Namespace, Name: fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60),
			Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kube.CronJob)},
		},
		Spec: t.Spec,
	}
}

// finish returns the condition with which a Job has finished, or "".
func finish(j *batchv1.Job) batchv1.JobConditionType {
	for _, t := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if kube.IsConditionTrue(j.Status.Conditions, t) {
			return t
		}
	}
	return ""
}

func active(s *batchv1.CronJobStatus, uid types.UID) bool {
	return slices.ContainsFunc(s.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

// drop takes a Job from the list of active ones.
func drop(s *batchv1.CronJobStatus, uid types.UID) {
	s.Active = slices.DeleteFunc(s.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

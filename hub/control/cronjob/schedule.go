package cronjob

import (
	"errors"
	"strings"
	"time"
	_ "time/tzdata" // a board's image may have no zone files, and then a time zone would be valid on one hub and not on another

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"

	"petrel.dev/petrel/internal/kube"
)

// delay is how long after its time a Job is started at the earliest: the clock may be set back a little in between.
const delay = 100 * time.Millisecond

// manyMissed is how many starts may be missed before it is worth a warning.
const manyMissed = 100

// parse reads a CronJob's schedule, in its time zone, which is valid. zoned reports that the schedule names a zone itself, which is
// not supported officially and obeyed.
func parse(cj *batchv1.CronJob) (s cron.Schedule, zoned bool, err error) {
	text := cj.Spec.Schedule
	if strings.Contains(text, "TZ") {
		s, err = cron.ParseStandard(text)
		return s, true, err
	}
	if cj.Spec.TimeZone != nil {
		text = "TZ=" + *cj.Spec.TimeZone + " " + text
	}
	s, err = cron.ParseStandard(text)
	return s, false, err
}

// zone returns the location in which the times of a CronJob's starts are noted: its time zone, UTC when it names none. A schedule without
// a zone is in the hub's own, as on Kubernetes.
func zone(cj *batchv1.CronJob) (*time.Location, error) {
	if cj.Spec.TimeZone == nil {
		return time.UTC, nil
	}
	return time.LoadLocation(*cj.Spec.TimeZone)
}

// since returns from when on a CronJob's starts count: the last start, or its creation.
func since(cj *batchv1.CronJob) time.Time {
	if last := cj.Status.LastScheduleTime; last != nil {
		return last.Time
	}
	return cj.CreationTimestamp.Time
}

var errNoGap = errors.New("time difference between two schedules is less than 1 second")

// due returns the latest time of a schedule after from and not after now, zero when there is none, and how many of its times are in
// between, roughly: from the gap between the first two. The error is that of a date that there never is, as 31 February.
func due(s cron.Schedule, from, now time.Time) (latest time.Time, times int, err error) {
	first := s.Next(from.Local()) // a schedule without a zone takes that of the time that it is asked about
	if now.Before(first) {
		return time.Time{}, 0, nil
	}
	second := s.Next(first)
	if now.Before(second) {
		return first, 0, nil
	}
	gap := second.Sub(first).Round(time.Second)
	if gap < time.Second {
		return time.Time{}, 0, errNoGap
	}
	times = int(now.Sub(first)/gap) + 1
	// Gaps may differ, so the search begins one gap further back, and further yet where it finds nothing: the last of many short gaps may be
	// followed by a long one. The schedule itself says what follows.
	for back := 2; latest.IsZero(); back *= 2 {
		from := first.Add(time.Duration(max(0, times-back)) * gap)
		if back > times {
			latest = first
		}
		for t := s.Next(from); !t.After(now); t = s.Next(t) {
			latest = t
		}
	}
	return latest, times, nil
}

// start returns the time for which a Job is due now, zero for none, and how many starts were missed.
func start(cj *batchv1.CronJob, s cron.Schedule, now time.Time) (at time.Time, missed int, err error) {
	from := since(cj)
	if d := cj.Spec.StartingDeadlineSeconds; d != nil {
		if deadline := now.Add(-kube.Seconds(*d)); deadline.After(from) {
			from = deadline
		}
	}
	return due(s, from, now)
}

// untilNext returns how long it is until the next start that is not due yet.
func untilNext(cj *batchv1.CronJob, s cron.Schedule, now time.Time) time.Duration {
	from := since(cj)
	latest, times, err := due(s, from, now)
	switch {
	case err != nil, latest.IsZero() && times > 0:
		latest = now
	case latest.IsZero():
		latest = from
	}
	return max(s.Next(latest.Local()).Add(delay).Sub(now), time.Millisecond)
}

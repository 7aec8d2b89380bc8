package cronjob

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // schedules without a zone are in the machine's
	os.Exit(m.Run())
}

// The scripts are timelines of CronJobs; each begins on 2000-01-01 at 00:00 UTC, a Saturday. Commands:
//
//	cron key=value...    creates the CronJob x: schedule (with _ for blanks) policy suspend deadline zone good bad
//	set key=value...     edits it
//	wait 10s             time passes
//	finish [bad]         all its Jobs that run complete, or fail
//	job name             a client makes a Job from it, as kubectl create job --from does
//	gone name            a Job is deleted
//	off, on              the hub stops, or starts again
//	show                 the time, the CronJob's status, and the Jobs: ! has failed, + is complete
//	events               the Events since the last time
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := newWorld(t)
		controltest.Script(t, path, w.command)
		w.stop()
	})
}

// world is a hub with its CronJob x.
type world struct {
	t      *testing.T
	c      *controltest.Client
	events *controltest.Events
	stop   func() // does nothing while the hub is off
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, c: controltest.New(t), events: &controltest.Events{}}
	w.start()
	return w
}

func (w *world) start() {
	ctl := New(Config{Client: w.c, Events: w.events})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = ctl.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (w *world) command(cmd string, args []string) string {
	switch cmd {
	case "cron":
		cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}}
		cj.Spec.ConcurrencyPolicy = batchv1.AllowConcurrent
		cj.Spec.JobTemplate.Labels = map[string]string{"l": "v"}
		w.configure(cj, args)
		if _, err := w.c.Create(w.t.Context(), cj); err != nil {
			w.t.Fatal(err)
		}
	case "set":
		cj := w.cronJob().DeepCopy()
		w.configure(cj, args)
		if _, err := w.c.Update(w.t.Context(), cj, ""); err != nil {
			w.t.Fatal(err)
		}
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "finish":
		end := batchv1.JobComplete
		if len(args) > 0 {
			end = batchv1.JobFailed
		}
		w.finish(end)
	case "job":
		j := newJob(w.cronJob(), time.Now(), time.UTC)
		j.Name = args[0]
		w.c.Put(j)
	case "gone":
		w.c.Remove(kube.Job, "default", args[0])
	case "off":
		w.stop()
		w.stop = func() {}
	case "on":
		w.start()
	case "show":
		return w.show()
	case "events":
		return strings.Join(w.events.Take(), "\n")
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	synctest.Wait()
	return ""
}

func (w *world) configure(cj *batchv1.CronJob, args []string) {
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "schedule":
			cj.Spec.Schedule = strings.ReplaceAll(v, "_", " ")
		case "policy":
			cj.Spec.ConcurrencyPolicy = batchv1.ConcurrencyPolicy(v)
		case "suspend":
			cj.Spec.Suspend = ptr.To(v == "true")
		case "deadline":
			cj.Spec.StartingDeadlineSeconds = ptr.To(int64(n))
		case "zone":
			cj.Spec.TimeZone = ptr.To(v)
		case "good":
			cj.Spec.SuccessfulJobsHistoryLimit = ptr.To(int32(n))
		case "bad":
			cj.Spec.FailedJobsHistoryLimit = ptr.To(int32(n))
		default:
			w.t.Fatalf("no setting %q", k)
		}
	}
}

func (w *world) finish(end batchv1.JobConditionType) {
	for _, j := range w.jobs() {
		if finish(j) != "" {
			continue
		}
		j = j.DeepCopy()
		now := metav1.Now()
		j.Status.StartTime = &j.CreationTimestamp
		j.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue, LastTransitionTime: now}}
		if end == batchv1.JobComplete {
			j.Status.CompletionTime = &now
		}
		w.c.Put(j)
	}
}

func (w *world) jobs() []*batchv1.Job {
	var out []*batchv1.Job
	for _, o := range w.c.Stored(kube.Job, "default") {
		out = append(out, o.(*batchv1.Job))
	}
	return out
}

func (w *world) cronJob() *batchv1.CronJob {
	cj, ok := control.Get[*batchv1.CronJob](w.c, kube.CronJob, "default", "x")
	if !ok {
		w.t.Fatal("no CronJob")
	}
	return cj
}

func (w *world) show() string {
	const short = "02 15:04:05"
	at := func(t *metav1.Time) string {
		if t == nil {
			return "never"
		}
		return t.UTC().Format(short)
	}
	s := w.cronJob().Status
	var listed []string
	for _, r := range s.Active {
		listed = append(listed, r.Name)
	}
	var jobs []string
	for _, j := range w.jobs() {
		jobs = append(jobs, map[batchv1.JobConditionType]string{"": "", batchv1.JobComplete: "+", batchv1.JobFailed: "!"}[finish(j)]+
			j.Name+" for "+j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	}
	slices.Sort(jobs)
	return fmt.Sprintf("%s: last %s, success %s, active %s\n  %s", time.Now().UTC().Format(short), at(s.LastScheduleTime), at(s.LastSuccessfulTime), listed, strings.Join(jobs, "\n  "))
}

package cronjob

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// TestMakesEachJobOnce checks that a hub which stops between making a Job and writing the status makes none twice, and lists it
// afterwards.
func TestMakesEachJobOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		broken := true
		w.c.Refuse = func(verb string, obj kube.Object, sub string) error {
			if _, ok := obj.(*batchv1.CronJob); ok && broken && sub == "status" {
				return errors.New("the hub stops here")
			}
			return nil
		}
		w.command("cron", []string{"schedule=0_*_*_*_*"})
		w.command("wait", []string{"61m"})
		w.command("off", nil)
		if n, s := len(w.jobs()), w.cronJob().Status; n != 1 || len(s.Active) != 0 || s.LastScheduleTime != nil {
			t.Fatalf("%d Jobs, %+v", n, s)
		}
		broken = false
		w.command("on", nil)
		if n, s := len(w.jobs()), w.cronJob().Status; n != 1 || len(s.Active) != 1 || s.Active[0].UID != w.jobs()[0].UID || s.LastScheduleTime == nil {
			t.Errorf("%d Jobs, %+v", n, s)
		}
		w.stop()
	})
}

// TestLeavesAnotherJobOfTheName checks that a Job of the name which is not the CronJob's is neither adopted nor replaced.
func TestLeavesAnotherJobOfTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.c.Put(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x-15778081"}})
		w.command("cron", []string{"schedule=*/1_*_*_*_*", "policy=Replace"})
		w.command("wait", []string{"61s"})
		if s := w.cronJob().Status; len(s.Active) != 0 || len(w.jobs()) != 1 || len(w.jobs()[0].OwnerReferences) != 0 {
			t.Errorf("%d Jobs, %+v", len(w.jobs()), s)
		}
		w.command("wait", []string{"60s"})
		if s := w.cronJob().Status; len(s.Active) != 1 || s.Active[0].Name != "x-15778082" {
			t.Errorf("the next one: %+v", s)
		}
		w.stop()
	})
}

func TestIdleWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.command("cron", []string{"schedule=0_0_*_*_*"})
		w.command("wait", []string{"24h1m"})
		w.command("finish", nil)
		w.c.Writes()
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		if got := w.c.Writes(); len(got) != 0 {
			t.Errorf("between two starts: %q", got)
		}
		w.stop()
	})
}

// TestDue checks which time of a schedule counts after a pause, and the rough number of times in it.
func TestDue(t *testing.T) {
	at := func(s string) time.Time {
		out, err := time.Parse(time.DateTime, "2026-"+s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct{ schedule, from, now, latest, times string }{
		{"0 * * * *", "03-01 10:00:00", "03-01 10:59:59", "", "0"},
		{"0 * * * *", "03-01 10:00:00", "03-01 11:00:00", "03-01 11:00:00", "0"},
		{"0 * * * *", "03-01 10:00:00", "03-01 13:30:00", "03-01 13:00:00", "3"},
		{"30 6-16/4 * * 1-5", "03-06 10:31:00", "03-09 08:00:00", "03-09 06:30:00", "2"}, // over a weekend, whose gap is longer
		{"* 0 * * *", "03-01 00:57:00", "03-01 23:00:00", "03-01 00:59:00", "1323"},      // many short gaps, and then a long one
		{"* 0 1 1 *", "01-01 00:00:00", "12-24 18:00:00", "01-01 00:59:00", "515160"},
		{"@every 1h", "03-01 10:05:00", "03-01 13:30:00", "03-01 13:05:00", "3"},
		{"@daily", "03-01 10:00:00", "03-01 23:59:59", "", "0"},
	} {
		s, _, err := parse(&batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: c.schedule}})
		if err != nil {
			t.Fatal(err)
		}
		latest, times, err := due(s, at(c.from), at(c.now))
		want := time.Time{}
		if c.latest != "" {
			want = at(c.latest)
		}
		if err != nil || !latest.Equal(want) || c.times != strconv.Itoa(times) {
			t.Errorf("%s from %s to %s: %v, %d times, %v; want %v, %s", c.schedule, c.from, c.now, latest, times, err, want, c.times)
		}
	}
}

package ttlafterfinished

import (
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

func job(name string, ttl *int32, conditions ...batchv1.JobConditionType) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: batchv1.JobSpec{TTLSecondsAfterFinished: ttl}}
	for _, t := range conditions {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	return j
}

// deleting reports whether the Job is gone, or waits for its pods to go.
func deleting(c *controltest.Client, name string) bool {
	j, ok := control.Get[*batchv1.Job](c, kube.Job, "default", name)
	return !ok || j.DeletionTimestamp != nil
}

func TestDeletesWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t,
			job("done", ptr.To(int32(60)), batchv1.JobSuccessCriteriaMet, batchv1.JobComplete),
			job("failed", ptr.To(int32(0)), batchv1.JobFailed),
			job("stays", nil, batchv1.JobComplete),
			job("runs", ptr.To(int32(0)), batchv1.JobFailureTarget),
		)
		go func() { _ = New(c, nil).Run(t.Context()) }()
		expect := func(when string, want map[string]bool) {
			t.Helper()
			synctest.Wait()
			for name, gone := range want {
				if got := deleting(c, name); got != gone {
					t.Errorf("%s: %s deleted %v, want %v", when, name, got, gone)
				}
			}
		}
		expect("at once", map[string]bool{"done": false, "failed": true, "stays": false, "runs": false})
		time.Sleep(59 * time.Second)
		expect("after 59 s", map[string]bool{"done": false})
		j, _ := control.Get[*batchv1.Job](c, kube.Job, "default", "done")
		j = j.DeepCopy()
		j.Spec.TTLSecondsAfterFinished = ptr.To(int32(120))
		if _, err := c.Update(t.Context(), j, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		expect("with a longer time, before it", map[string]bool{"done": false})
		time.Sleep(time.Second)
		expect("with a longer time, after it", map[string]bool{"done": true})
		if j, ok := control.Get[*batchv1.Job](c, kube.Job, "default", "done"); !ok || len(j.Finalizers) != 1 || j.Finalizers[0] != metav1.FinalizerDeleteDependents {
			t.Error("it is not deleted in the foreground")
		}
		c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("idle controller wrote %q", w)
		}
		expect("a day later", map[string]bool{"stays": false, "runs": false})
	})
}

package hollow

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestJobCountsOverKills kills a hub again and again while a Job runs to its completions. Each is counted once, none is run in vain,
// and no pod keeps the finalizer that guards its counting.
func TestJobCountsOverKills(t *testing.T) {
	h := startHub(t)
	f := startFleet(t, h, 10)
	eventually(t, workLimit, "all nodes are connected", func() bool { return f.all(connected) })
	n, parallel := int32(300), int32(40)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Spec: batchv1.JobSpec{Completions: &n, Parallelism: &parallel, Template: template("work", "1")}}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	_, err := h.client.BatchV1().Jobs("default").Create(t.Context(), j, metav1.CreateOptions{})
	must(t, err)
	succeeded := func() int32 {
		j, err := h.client.BatchV1().Jobs("default").Get(t.Context(), "work", metav1.GetOptions{})
		if err != nil {
			return 0
		}
		if j.Status.Succeeded > n || j.Status.Failed > 0 {
			t.Fatalf("%d of %d are counted as succeeded, %d as failed", j.Status.Succeeded, n, j.Status.Failed)
		}
		return j.Status.Succeeded
	}
	// Each time at another point of what the controller does: seen from outside, anywhere between two counts.
	for i, kills := int32(0), int32(5); i < kills; i++ {
		last := int32(0)
		eventually(t, workLimit, "some more pods are counted", func() bool {
			last = max(last, succeeded())
			return last >= 1+i*n/(kills+1)
		})
		time.Sleep(time.Duration(i) * 37 * time.Millisecond)
		if last == n {
			t.Fatal("the Job has ended before the hub was killed")
		}
		h.kill()
		h.start()
		if now := succeeded(); now < last {
			t.Errorf("%d were counted before the hub was killed, and %d after", last, now)
		}
	}
	eventually(t, workLimit, "the Job is complete", func() bool {
		j, err := h.client.BatchV1().Jobs("default").Get(t.Context(), "work", metav1.GetOptions{})
		return err == nil && j.Status.CompletionTime != nil
	})
	if got := succeeded(); got != n {
		t.Errorf("the Job is complete with %d of %d", got, n)
	}
	pods, err := h.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=work"})
	must(t, err)
	ended := int32(0)
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodSucceeded {
			ended++
		}
		if len(p.Finalizers) > 0 {
			t.Errorf("pod %s, %s, has finalizers %q", p.Name, p.Status.Phase, p.Finalizers)
		}
	}
	if ended != n || len(pods.Items) != int(n) {
		t.Errorf("%d pods are there, of which %d have succeeded; want %d", len(pods.Items), ended, n)
	}
}

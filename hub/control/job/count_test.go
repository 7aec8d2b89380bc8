package job

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// TestEachEndIsCountedOnce ends and deletes pods at random, while writes fail, the cache lags and the hub is restarted at any moment:
// the counters are the number of ends that there were.
func TestEachEndIsCountedOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		wrong := ""
		synctest.Test(t, func(t *testing.T) { wrong = countAtRandom(t, rt) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// countAtRandom returns what is wrong with the counters, or "".
func countAtRandom(t *testing.T, rt *rapid.T) string {
	c := controltest.New(t)
	w := newWorld(t, c)
	failing := false
	writes := 0
	c.Refuse = func(verb string, obj kube.Object, _ string) error {
		if writes++; failing && writes%3 == 0 {
			return errors.New("the disk is full")
		}
		return nil
	}
	const completions = 12
	succeeded, failed, most := 0, 0, 0
	w.start()
	w.command("job", []string{"completions=12", "parallelism=4", "backoff=1000"})
	for range rapid.IntRange(10, 40).Draw(rt, "steps") {
		switch rapid.IntRange(0, 7).Draw(rt, "step") {
		case 0:
			w.stop()
			w.start()
		case 1:
			failing = !failing
		case 2:
			c.Lag(true)
			time.Sleep(time.Second)
			c.Lag(false)
			w.settle()
		default:
			failing = false
			w.command("run", nil)
			for _, p := range w.running(nil) {
				switch rapid.IntRange(0, 3).Draw(rt, "fate") {
				case 0:
					succeeded += endOnce(w, p, 0)
				case 1:
					failed += endOnce(w, p, 1)
				case 2:
					if !tracked(p) {
						continue
					}
					if err := w.c.Delete(t.Context(), kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &p.ResourceVersion}}); err == nil {
						failed++
					}
				}
			}
			failing = rapid.Bool().Draw(rt, "failing")
			w.settle()
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		s := w.job().Status
		if n := int(s.Succeeded); n < most || n > succeeded {
			w.stop()
			return fmt.Sprintf("%d succeeded after %d, of %d", n, most, succeeded)
		}
		most = int(s.Succeeded)
	}
	failing = false
	w.command("gone", nil)
	time.Sleep(11 * time.Minute)
	synctest.Wait()
	w.stop()
	if s := w.job().Status; int(s.Succeeded) != succeeded || int(s.Failed) != failed || finished(w.job()) != (succeeded >= completions) {
		return fmt.Sprintf("status %d succeeded, %d failed, finished %v; there were %d and %d", s.Succeeded, s.Failed, finished(w.job()), succeeded, failed)
	}
	return ""
}

// endOnce ends a pod that has still to be counted, and is as the test saw it; it returns 1, or 0 when the pod is not.
func endOnce(w *world, p *corev1.Pod, code int) int {
	if _, err := w.c.Update(w.t.Context(), ended(p, code), "status"); err != nil || !tracked(p) {
		return 0
	}
	return 1
}

// TestCountsWhatAnotherControllerListed checks that pods which a status lists as ended and not yet counted are counted once: those that
// still have the finalizer, and those that do not any more.
func TestCountsWhatAnotherControllerListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		w := newWorld(t, c)
		w.command("job", []string{"completions=5", "parallelism=1", "suspend=true"})
		j := w.job().DeepCopy()
		j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"there", "gone"}, Failed: []types.UID{"bad"}}
		c.Put(j)
		for uid, code := range map[string]int{"there": 0, "bad": 1, "new": 0} {
			p := newPod(w.job())
			p.Name, p.UID = uid, types.UID(uid)
			c.Put(ended(p, code))
		}
		w.start()
		if s := w.job().Status; s.Succeeded != 3 || s.Failed != 1 || len(s.UncountedTerminatedPods.Succeeded)+len(s.UncountedTerminatedPods.Failed) != 0 {
			t.Errorf("status: %+v", s)
		}
		for _, p := range w.pods() {
			if tracked(p) {
				t.Errorf("%s has the finalizer", p.Name)
			}
		}
		w.stop()
	})
}

// TestPodsOfAJob checks what a pod gets beyond the template.
func TestPodsOfAJob(t *testing.T) {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "u"}}
	j.Spec.BackoffLimitPerIndex = ptr.To(int32(3))
	j.Spec.Template.Spec = corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i"}},
		Containers:     []corev1.Container{{Name: "c"}, {Name: "own", Env: []corev1.EnvVar{{Name: indexEnv, Value: "mine"}}}},
	}
	p := newIndexedPod(j, 7, nil)
	if p.GenerateName != "x-7-" || p.Spec.Hostname != "x-7" || !tracked(p) || p.Labels[batchv1.JobCompletionIndexAnnotation] != "7" ||
		p.Annotations[batchv1.JobCompletionIndexAnnotation] != "7" || p.Annotations[batchv1.JobIndexFailureCountAnnotation] != "0" {
		t.Errorf("pod %+v", p.ObjectMeta)
	}
	for _, c := range []corev1.Container{p.Spec.InitContainers[0], p.Spec.Containers[0]} {
		if len(c.Env) != 1 || c.Env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
			t.Errorf("%s: %+v", c.Name, c.Env)
		}
	}
	if env := p.Spec.Containers[1].Env; len(env) != 1 || env[0].Value != "mine" {
		t.Errorf("the template's own variable: %+v", env)
	}
	if len(j.Spec.Template.Spec.Containers[0].Env) != 0 {
		t.Error("the template was changed")
	}
	j.Name = strings.Repeat("n", 63)
	if p := newIndexedPod(j, 12345, nil); len(p.GenerateName) > 63+7 || !strings.HasSuffix(p.GenerateName, "-12345-") {
		t.Errorf("a long name: %s", p.GenerateName)
	}
}

func TestIndexSets(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
		size  int
	}{
		{"", 5, "", 0},
		{"0", 5, "0", 1},
		{"1,3-5,7", 100, "1,3-5,7", 5},
		{"0,1,2", 100, "0-2", 3},
		{"3,4", 100, "3,4", 2},
		{"1,3-9", 5, "1,3,4", 3},
		{"7", 5, "", 0},
		{"x,2,4-y,-1", 5, "2", 1},
	} {
		if got := parseIndexes(c.in, c.limit); got.String() != c.want || got.size() != c.size {
			t.Errorf("%q below %d: %s of %d, want %s of %d", c.in, c.limit, got, got.size(), c.want, c.size)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOf(rapid.IntRange(0, 30)).Draw(t, "list")
		more := rapid.SliceOf(rapid.IntRange(0, 30)).Draw(t, "more")
		a, b, in := indexesOf(list), indexesOf(more), map[int]int{}
		for _, i := range list {
			in[i] |= 1
		}
		for _, i := range more {
			in[i] |= 2
		}
		both, free := 0, []int{}
		for i := range 31 {
			if a.has(i) != (in[i]&1 != 0) || a.union(b).has(i) != (in[i] != 0) {
				t.Fatalf("%s, %s: %d", a, b, i)
			}
			if in[i] == 3 {
				both++
			}
			if in[i]&1 == 0 {
				free = append(free, i)
			}
		}
		if a.common(b) != both || parseIndexes(a.String(), 31).String() != a.String() {
			t.Fatalf("%s and %s have %d in common, want %d", a, b, a.common(b), both)
		}
		if got := a.missing(3, 31); len(got) != min(3, len(free)) || len(got) > 0 && got[len(got)-1] != free[len(got)-1] {
			t.Fatalf("%s: missing %v, want the first of %v", a, got, free)
		}
	})
}

// TestIdleWritesNothing checks that a Job that waits, and one that has finished, cost nothing.
func TestIdleWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		w := newWorld(t, c)
		w.start()
		w.command("job", []string{"deadline=1000000"})
		w.command("run", nil)
		c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := c.Writes(); len(got) != 0 {
			t.Errorf("while a pod runs: %q", got)
		}
		w.command("succeed", nil)
		c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := c.Writes(); len(got) != 0 {
			t.Errorf("after the end: %q", got)
		}
		w.stop()
	})
}

// TestLargeJob checks that 2,000 completions at 200 at a time are made and counted in syncs that take many pods each.
func TestLargeJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		w := newWorld(t, c)
		w.start()
		w.command("job", []string{"completions=2000", "parallelism=200"})
		for range 200 {
			if finished(w.job()) {
				break
			}
			w.command("run", nil)
			w.command("succeed", nil)
		}
		status := 0
		for _, line := range c.Writes() {
			if strings.HasSuffix(line, "x status") {
				status++
			}
		}
		if s := w.job().Status; s.Succeeded != 2000 || !finished(w.job()) || status > 100 {
			t.Errorf("%d succeeded with %d writes of the status", s.Succeeded, status)
		}
		w.stop()
	})
}

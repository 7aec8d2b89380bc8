package podrun_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/podrun"
)

func (n *node) podStatus(uid string) corev1.PodStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status[uid]
}

func fill(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestLimitsEvict (field case 08): within two looks a pod that is over one of its limits has ended, with upstream's words,
// and what it had on the disk is gone; one that keeps its limits goes on.
func TestLimitsEvict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer func() { n.stop() }()
		limit := resource.MustParse("5Mi")
		withVolume := func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		}
		withLimit := func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
		}
		two := func(p *corev1.Pod) {
			big := p.Spec.Containers[0]
			big.Name = "big"
			big.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("50Mi")}
			p.Spec.Containers = append(p.Spec.Containers, big)
		}
		writer := func(p *corev1.Pod) { p.Spec.Containers[0].Name = "writer" }
		n.fake.Written = map[string]int64{"writer": 30 << 20}
		pods := []any{aPod("volume", withVolume, withLimit), aPod("layer", writer, withLimit), aPod("one", writer, withLimit, two), aPod("logs", withLimit),
			aPod("good", withVolume, withLimit), aPod("free", writer)}
		n.apply(true, pods...)
		fill(t, filepath.Join(n.dir, "volume", ".volumes", "e", "big"), 20<<20)
		fill(t, filepath.Join(n.dir, "good", ".volumes", "e", "small"), 1<<20)
		if err := os.MkdirAll(filepath.Join(n.dir, "logs", "main"), 0o755); err != nil {
			t.Fatal(err)
		}
		fill(t, filepath.Join(n.dir, "logs", "main", "0.log"), 6<<20)
		time.Sleep(21 * time.Second)
		n.settle()
		for uid, why := range map[string]string{
			"volume": `Usage of EmptyDir volume "e" exceeds the limit "5Mi". `,
			"layer":  "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ",
			"one":    `Container writer exceeded its local ephemeral storage limit "5Mi". `,
			"logs":   "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ",
		} {
			st := n.podStatus(uid)
			if st.Phase != corev1.PodFailed || st.Reason != "Evicted" || st.Message != why {
				t.Errorf("%s: %s %s %q, want %q", uid, st.Phase, st.Reason, st.Message, why)
			}
			if len(st.ContainerStatuses) == 0 || st.ContainerStatuses[0].State.Terminated == nil {
				t.Errorf("%s: %+v", uid, st.ContainerStatuses)
			}
			if list, err := n.fake.Containers(t.Context(), uid); err != nil || len(list) > 0 {
				t.Errorf("%s still has %d containers, %v", uid, len(list), err)
			}
			if _, err := os.Stat(filepath.Join(n.dir, uid, ".volumes", "e")); err == nil {
				t.Errorf("%s still has its volume", uid)
			}
		}
		n.want("good", "Running main#0 running")
		n.want("free", "Running writer#0 running")
		if events, _ := n.eventCount("Evicted"); events != 4 {
			t.Errorf("%d events, want 4", events)
		}
		// It stays evicted, also for the next life of the agent.
		n.stop()
		n.start()
		n.apply(true, pods...)
		time.Sleep(time.Minute)
		n.settle()
		if st := n.podStatus("volume"); st.Phase != corev1.PodFailed || st.Reason != "Evicted" {
			t.Errorf("after a restart of the agent: %s %s", st.Phase, st.Reason)
		}
		if n.fake.Count("Start") != 7 {
			t.Errorf("%d starts, want 7", n.fake.Count("Start"))
		}
	})
}

// TestUnmeasurable checks that a pod with limits that nests directories too deep to be counted does not escape its limit so.
func TestUnmeasurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer func() { n.stop() }()
		limit := resource.MustParse("5Mi")
		n.apply(true, aPod("deep", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		}))
		root, err := os.OpenRoot(filepath.Join(n.dir, "deep", ".volumes", "e"))
		if err != nil {
			t.Fatal(err)
		}
		for range 600 {
			if err := root.Mkdir("d", 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := root.OpenRoot("d")
			root.Close()
			if err != nil {
				t.Fatal(err)
			}
			root = next
		}
		root.Close()
		time.Sleep(21 * time.Second)
		n.settle()
		if st := n.podStatus("deep"); st.Reason != "Evicted" || st.Message != "Pod ephemeral local storage usage cannot be measured: its directories are more than 512 deep. " {
			t.Errorf("%s %q", st.Reason, st.Message)
		}
	})
}

// TestQuietDisk checks that pods with limits are not measured while nothing is written to the disk, and at once when as much is
// written as they have left.
func TestQuietDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		var free atomic.Int64
		free.Store(1 << 30)
		n.stop()
		n.free = free.Load
		n.start()
		defer func() { n.stop() }()
		limit := resource.MustParse("5Mi")
		n.apply(true, aPod("a", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
		}))
		time.Sleep(time.Minute)
		before := n.fake.Count("DiskUsage")
		time.Sleep(4 * time.Minute)
		if got := n.fake.Count("DiskUsage") - before; got > 1 {
			t.Errorf("measured %d times on a disk that nobody writes to", got)
		}
		n.settle()
		before = n.fake.Count("DiskUsage")
		free.Add(-6 << 20)
		time.Sleep(10 * time.Second)
		n.settle()
		if got := n.fake.Count("DiskUsage") - before; got != 1 {
			t.Errorf("measured %d times when the disk had lost more than the pod had left, want once", got)
		}
	})
}

// TestPressureEvicts checks that when the disk is short, what has ended goes first, then the pod that uses the most over its
// request.
func TestPressureEvicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer func() { n.stop() }()
		named := func(name string, priority int32) func(*corev1.Pod) {
			return func(p *corev1.Pod) { p.Spec.Containers[0].Name, p.Spec.Priority = name, &priority }
		}
		n.fake.Written = map[string]int64{"small": 2 << 20, "big": 90 << 20, "vip": 900 << 20, "critical": 900 << 20, "asked": 300 << 20}
		n.apply(true, aPod("small", named("small", 0)), aPod("big", named("big", 0)), aPod("vip", named("vip", 1000)), aPod("critical", named("critical", 2_000_001_000)),
			aPod("asked", named("asked", 0), func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("1Gi")}
			}),
			aPod("empty", named("empty", 0)), aPod("done", named("done", 0), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		n.fake.Exit("done", "done", 0)
		n.settle()
		n.want("done", "Succeeded done#0 ended")
		time.Sleep(time.Second)
		n.manager.Discard()
		n.settle()
		if list, _ := n.fake.Containers(t.Context(), "done"); len(list) > 0 {
			t.Error("the container of a pod that has ended is still there")
		}
		n.want("done", "Succeeded done#0 ended")
		for _, next := range []string{"big", "small", "vip", "asked"} {
			begin := time.Now()
			if !n.manager.Evict(t.Context(), 10<<30, 9<<30) {
				t.Fatalf("nobody is evicted, want %s", next)
			}
			if took := time.Since(begin); took >= 30*time.Second { // what it may take
				t.Errorf("%s has given its space back, and the wait for it took %s", next, took)
			}
			n.settle()
			st := n.podStatus(next)
			if st.Reason != "Evicted" {
				t.Fatalf("%s is %s, and was to be evicted", next, n.line(next))
			}
			if c := conditionOf(st, corev1.DisruptionTarget); c == nil || c.Reason != "TerminationByKubelet" {
				t.Errorf("%s: condition %+v", next, c)
			}
		}
		const begin, end = "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. Container big was using ", ", request is 0, has larger consumption of ephemeral-storage. "
		if st := n.podStatus("big"); !strings.HasPrefix(st.Message, begin) || !strings.HasSuffix(st.Message, end) {
			t.Errorf("message %q", st.Message)
		}
		if n.manager.Evict(t.Context(), 10<<30, 9<<30) {
			t.Error("a critical pod, or one that has nothing on the disk, was evicted")
		}
		n.want("critical", "Running critical#0 running")
		n.want("empty", "Running empty#0 running")

		n.manager.SetDiskPressure(true)
		n.apply(true, aPod("critical", named("critical", 2_000_001_000)), aPod("empty", named("empty", 0)),
			aPod("new", named("new", 1000)), aPod("urgent", named("urgent", 2_000_000_000)))
		if st := n.podStatus("new"); st.Phase != corev1.PodFailed || st.Reason != "Evicted" || st.Message != "Pod was rejected: The node had condition: [DiskPressure]. " {
			t.Errorf("a new pod on a node whose disk is short: %s %s %q", st.Phase, st.Reason, st.Message)
		}
		n.want("urgent", "Running urgent#0 running")
		n.want("empty", "Running empty#0 running")
	})
}

// TestSavedImages covers the images of saved pods; what is no plain file there is neither waited for nor followed.
func TestSavedImages(t *testing.T) {
	dir := t.TempDir()
	for _, uid := range []string{"good", "fifo", "link"} {
		if err := os.Mkdir(filepath.Join(dir, uid), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.WriteFile(filepath.Join(dir, "good/pod.json"), []byte(`{"spec":{"containers":[{"image":"example.com/app:1"}]}}`), 0o600),
		unix.Mkfifo(filepath.Join(dir, "fifo/pod.json"), 0o600), os.Symlink("../good/pod.json", filepath.Join(dir, "link/pod.json")))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []string, 1)
	go func() { got <- podrun.SavedImages(dir) }()
	select {
	case images := <-got:
		if !slices.Equal(images, []string{"example.com/app:1"}) {
			t.Errorf("images: %v", images)
		}
	case <-time.After(runtimetest.Hope):
		t.Fatal("it waits for somebody to write to a FIFO")
	}
}

func conditionOf(st corev1.PodStatus, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range st.Conditions {
		if st.Conditions[i].Type == kind {
			return &st.Conditions[i]
		}
	}
	return nil
}

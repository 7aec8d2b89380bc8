package ctrd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/internal/wire"
)

// knob reads a cgroup's file below the root of the hierarchy, or of its controller's hierarchy on version 1.
func knob(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{cgroup.Root}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestLimits checks that what a pod may use is what the kernel lets it use, and what its processes read there. It knows both
// versions of cgroups; `make boards` runs it on version 2.
func TestLimits(t *testing.T) {
	b := newBench(t)
	cg := cgroup.Detect(cgroup.Root, "/proc/cgroups")
	limits := corev1.ResourceList{"cpu": quantity("500m")}
	if cg.Memory {
		limits["memory"] = quantity("64Mi")
	}
	b.pod("limited", corev1.Container{Command: []string{"/bin/sleep", "1000"},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": quantity("100m")}, Limits: limits}})
	id := strings.TrimPrefix(b.await("limited", "running", isRunning).ContainerStatuses[0].ContainerID, "containerd://")
	pod := cgroup.Path("limited", "")
	container := pod + "/" + id
	for _, name := range []string{pod, container} {
		var got, want []string
		switch {
		case cg.Unified:
			got, want = []string{knob(t, name, "cpu.max")}, []string{"50000 100000"}
			if cg.Memory {
				got, want = append(got, knob(t, name, "memory.max")), append(want, "67108864")
			}
		default:
			got, want = []string{knob(t, "cpu", name, "cpu.cfs_quota_us"), knob(t, "cpu", name, "cpu.shares")}, []string{"50000", "102"}
			if cg.Memory {
				got, want = append(got, knob(t, "memory", name, "memory.limit_in_bytes")), append(want, "67108864")
			}
		}
		if g, w := strings.Join(got, ", "), strings.Join(want, ", "); g != w {
			t.Errorf("cgroup %s has %s; want %s", name, g, w)
		}
	}
	if cg.Unified {
		if w := knob(t, pod, "cpu.weight"); w != "4" {
			t.Errorf("the pod weighs %s; 102 shares are a weight of 4", w)
		}
		// What runc makes of 102 shares depends on its version, but it is less than the kernel's default.
		if w := knob(t, container, "cpu.weight"); len(w) > 2 {
			t.Errorf("the container weighs %s", w)
		}
	}

	exec := func(command string) (string, int) {
		out, errs, end := drain(t, b.dial(wire.StreamRequest{PodUID: "limited", Container: "main", Kind: wire.StreamExec, Stdout: true, Stderr: true,
			Command: []string{"/bin/sh", "-c", command}}))
		return strings.TrimSpace(out + errs), end.ExitCode
	}
	inside := []string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"}
	if cg.Unified {
		inside = []string{"/sys/fs/cgroup/cpu.max", "50000 100000"}
	}
	if got, _ := exec("cat " + inside[0]); got != inside[1] {
		t.Errorf("in the container %s is %q; want %q", inside[0], got, inside[1])
	}
	if got, code := exec("echo 1000 > " + inside[0]); code == 0 || !strings.Contains(got, "Read-only") {
		t.Errorf("a container lifts its own limit: %q", got)
	}
}

// bounds reads what a cgroup is bounded to, as "quota of period, memory" in version 2's words.
func bounds(t *testing.T, cg cgroup.Tree, name string) string {
	t.Helper()
	if cg.Unified {
		if !cg.Memory {
			return knob(t, name, "cpu.max")
		}
		return knob(t, name, "cpu.max") + ", " + knob(t, name, "memory.max")
	}
	out := knob(t, "cpu", name, "cpu.cfs_quota_us") + " " + knob(t, "cpu", name, "cpu.cfs_period_us")
	if cg.Memory {
		out += ", " + knob(t, "memory", name, "memory.limit_in_bytes")
	}
	return out
}

// TestResize checks that the kernel bounds a container, and its pod, to other resources while it runs, larger and smaller; that one whose
// policy says so is started again; and that an agent which comes back knows what a container has.
func TestResize(t *testing.T) {
	b := newBench(t)
	cg := cgroup.Detect(cgroup.Root, "/proc/cgroups")
	resources := func(cpu, memory string) corev1.ResourceRequirements {
		list := corev1.ResourceList{"cpu": quantity(cpu)}
		if cg.Memory {
			list["memory"] = quantity(memory)
		}
		return corev1.ResourceRequirements{Limits: list, Requests: list}
	}
	size := func(cpu, memory string) {
		b.set = nil
		b.pod("sized", corev1.Container{Command: []string{"/bin/sleep", "1000"}, Resources: resources(cpu, memory)}, func(p *corev1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "memory", RestartPolicy: corev1.RestartContainer}}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: testImage, Command: []string{"/bin/sleep", "1000"}, Resources: resources(cpu, memory)})
		})
	}
	check := func(cpu, container, pod string, restarts ...int32) {
		t.Helper()
		st := b.await("sized", "resized to "+cpu, func(st corev1.PodStatus) bool {
			for _, c := range st.Conditions {
				if c.Type == corev1.PodResizeInProgress || c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
					return false
				}
			}
			return len(st.ContainerStatuses) == 2 && st.ContainerStatuses[0].Resources != nil && st.ContainerStatuses[0].Resources.Limits.Cpu().String() == cpu
		})
		for i, cs := range st.ContainerStatuses {
			if cs.RestartCount != restarts[i] {
				t.Errorf("%s was started %d times more", cs.Name, cs.RestartCount)
			}
			want := container
			if !cg.Memory {
				want, _, _ = strings.Cut(want, ",")
			}
			if got := bounds(t, cg, cgroup.Path("sized", strings.TrimPrefix(cs.ContainerID, "containerd://"))); got != want {
				t.Errorf("%s has %s; want %s", cs.Name, got, want)
			}
		}
		if !cg.Memory {
			pod, _, _ = strings.Cut(pod, ",")
		}
		if got := bounds(t, cg, cgroup.Path("sized", "")); got != pod {
			t.Errorf("the pod has %s; want %s", got, pod)
		}
	}
	size("200m", "32Mi")
	check("200m", "20000 100000, 33554432", "40000 100000, 67108864", 0, 0)
	size("500m", "32Mi")
	check("500m", "50000 100000, 33554432", "100000 100000, 67108864", 0, 0)
	size("100m", "32Mi")
	check("100m", "10000 100000, 33554432", "20000 100000, 67108864", 0, 0)
	if cg.Memory {
		size("150m", "64Mi") // main is started again for it
		check("150m", "15000 100000, 67108864", "30000 100000, 134217728", 1, 0)
		size("120m", "16Mi")
		check("120m", "12000 100000, 16777216", "24000 100000, 33554432", 2, 0)
	}
}

// TestOutOfMemory checks that a container that the kernel has taken memory from by force is said to be OOMKilled; on version 2
// all of it goes, not just the process that was the largest, as Kubernetes has it.
func TestOutOfMemory(t *testing.T) {
	cg := cgroup.Detect(cgroup.Root, "/proc/cgroups")
	if !cg.Memory {
		t.Skip("this machine's kernel has its memory cgroup off")
	}
	b := newBench(t)
	bounded := corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": quantity("16Mi")}}
	never := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }
	const devour = "x=$(yes | head -c 100000000)"
	pods := map[string]string{"itself": devour + "; sleep 1000"}
	if cg.Unified {
		pods["child"] = "sh -c '" + devour + "'; sleep 1000"
	}
	for name, script := range pods {
		b.pod(name, corev1.Container{Command: []string{"/bin/sh", "-c", script}, Resources: bounded}, never)
	}
	for name := range pods {
		st := b.await(name, "failed", func(st corev1.PodStatus) bool { return st.Phase == corev1.PodFailed })
		if term := st.ContainerStatuses[0].State.Terminated; term == nil || term.Reason != "OOMKilled" || term.ExitCode != 137 {
			t.Errorf("%s: %+v", name, st.ContainerStatuses[0])
		}
	}
}

package ctrd

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/internal/wire"
)

// shell runs a command in a container of a running pod and returns what it prints.
func (b *bench) shell(pod, container, command string) string {
	b.t.Helper()
	out, errs, _ := drain(b.t, b.dial(wire.StreamRequest{PodUID: pod, Container: container, Kind: wire.StreamExec, Stdout: true, Stderr: true,
		Command: []string{"/bin/sh", "-c", command}}))
	return strings.TrimSpace(out + errs)
}

// bound reads a limit of a pod's cgroup by its name in version 1 and in version 2.
func (b *bench) bound(cg cgroup.Tree, pod, controller, v1, v2 string) string {
	b.t.Helper()
	if cg.Unified {
		return knob(b.t, cgroup.Path(pod, ""), v2)
	}
	return knob(b.t, controller, cgroup.Path(pod, ""), v1)
}

// TestPublicResources covers public cases in which the kernel was asked for something else than the pod had asked for.
func TestPublicResources(t *testing.T) {
	b := newBench(t)
	cg := b.runtime.cgroups
	if !cg.Memory {
		t.Skip("this machine has no memory cgroup")
	}
	wait := []string{"/bin/sleep", "1000"}
	always := corev1.ContainerRestartPolicyAlways
	sixty := corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": quantity("10m"), "memory": quantity("30Mi")}, Limits: corev1.ResourceList{"memory": quantity("60Mi")}}
	b.pod("sidecar", corev1.Container{Command: wait, Resources: sixty}, func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "side", Image: testImage, Command: wait, RestartPolicy: &always, Resources: sixty}}
	})
	whole := corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": quantity("100m"), "memory": quantity("20Mi")}, Limits: corev1.ResourceList{"cpu": quantity("200m"), "memory": quantity("40Mi")}}
	b.pod("whole", corev1.Container{Command: []string{"/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1; echo $? $LIMIT; exec sleep 1000"},
		Env: []corev1.EnvVar{{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}}}},
		func(p *corev1.Pod) { p.Spec.Resources = &whole })
	b.pod("zero", corev1.Container{Command: wait, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"memory": quantity("64Mi")},
		Limits: corev1.ResourceList{"cpu": quantity("0"), "memory": quantity("64Mi")}}})

	b.await("sidecar", "running", isRunning)
	if got := b.bound(cg, "sidecar", "memory", "memory.limit_in_bytes", "memory.max"); got != "125829120" {
		t.Errorf("a sidecar and a container with 60 MiB each have %s bytes", got)
	}
	if st := b.await("whole", "running", isRunning); st.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("class %s", st.QOSClass)
	}
	if got := b.bound(cg, "whole", "memory", "memory.limit_in_bytes", "memory.max"); got != "41943040" {
		t.Errorf("a pod with 40 MiB has %s bytes", got)
	}
	if got := b.shell("whole", "main", "echo $LIMIT"); got != "41943040" {
		t.Errorf("its container finds the limit %q", got)
	}
	b.awaitLog("whole", "137 41943040")
	if st := b.await("zero", "running", isRunning); st.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("with a CPU limit of zero: class %s", st.QOSClass)
	}
}

// TestBoundedHost checks that on a host that may not do everything (a container, a user namespace) pods that ask for much get
// what there is.
func TestBoundedHost(t *testing.T) {
	b := newBench(t)
	res := corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": quantity("100m")}}
	if b.runtime.cgroups.Memory {
		res.Limits["memory"] = quantity("64Mi")
	}
	b.pod("guaranteed", corev1.Container{Command: []string{"/bin/sleep", "1000"}, Resources: res}, func(p *corev1.Pod) {
		p.Spec.PriorityClassName = "system-node-critical" // the same score, also where there is no memory cgroup
	})
	b.pod("all", corev1.Container{Command: []string{"/bin/sleep", "1000"}, SecurityContext: &corev1.SecurityContext{
		Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"ALL"}, Drop: []corev1.Capability{"SYS_ADMIN"}}}})
	b.await("guaranteed", "running", isRunning)
	if got, want := b.shell("guaranteed", "main", "cat /proc/self/oom_score_adj"), strconv.Itoa(max(-997, b.runtime.leastOOMScore)); got != want {
		t.Errorf("score %s; want %s", got, want)
	}
	b.await("all", "running", isRunning)
	if got := b.shell("all", "main", "grep CapEff /proc/1/status"); !strings.Contains(got, "CapEff") || strings.HasSuffix(got, "a80425fb") {
		t.Errorf("capabilities %s", got)
	}
}

// TestForkBomb checks that a pod has only so many processes, and what it cannot do is up to its seccomp profile, unless it says
// otherwise.
func TestForkBomb(t *testing.T) {
	b := newBench(t)
	b.pod("bomb", corev1.Container{Command: []string{"/bin/sh", "-c", "for i in $(seq 100); do sleep 1000 & done; echo more than 64; exec sleep 1000"}})
	b.pod("free", corev1.Container{Command: []string{"/bin/sleep", "1000"},
		SecurityContext: &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}})
	privileged := true
	b.pod("privileged", corev1.Container{Command: []string{"/bin/sleep", "1000"}, SecurityContext: &corev1.SecurityContext{Privileged: &privileged}})
	b.pod("default", corev1.Container{Command: []string{"/bin/sleep", "1000"}})
	for pod, want := range map[string]string{"default": "2", "free": "0", "privileged": "0"} {
		b.await(pod, "running", isRunning)
		if got := b.shell(pod, "main", "grep ^Seccomp: /proc/1/status"); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s; want %s", pod, got, want)
		}
	}
	cg := b.runtime.cgroups
	if !cg.Pids {
		t.Skip("this machine has no pids cgroup")
	}
	b.awaitLog("bomb", "can't fork")
	if got := b.bound(cg, "bomb", "pids", "pids.max", "pids.max"); got != "64" {
		t.Errorf("the pod may have %s processes", got)
	}
}

// TestSharedProcesses checks that the containers of a pod that shares its processes see each other, come and go without each
// other, leave no zombies, and leave nothing at all when the pod goes.
func TestSharedProcesses(t *testing.T) {
	b := newBench(t)
	yes := true
	b.pod("shared", corev1.Container{Command: []string{"/bin/sleep", "987"}}, func(p *corev1.Pod) {
		p.Spec.ShareProcessNamespace = &yes
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: testImage, Command: []string{"/bin/sleep", "986"}})
	})
	b.pod("alone", corev1.Container{Command: []string{"/bin/sleep", "985"}})
	both := func(st corev1.PodStatus) bool {
		return st.Phase == corev1.PodRunning && st.ContainerStatuses[0].State.Running != nil && st.ContainerStatuses[1].State.Running != nil
	}
	b.await("shared", "running", both)
	ps := b.shell("shared", "other", "ps")
	for _, want := range []string{"1 65535", "/pod-init", "sleep 987", "sleep 986"} {
		if !strings.Contains(ps, want) {
			t.Errorf("a container does not see %q:\n%s", want, ps)
		}
	}
	if strings.Contains(ps, "985") {
		t.Errorf("a container sees another pod:\n%s", ps)
	}
	for file, want := range map[string]string{"/proc/1/root/etc": "denied", "/proc/1/status": "CapEff:\t0000000000000000"} {
		if got := b.shell("shared", "main", "cat "+file+"/passwd 2>&1; cat "+file); !strings.Contains(got, want) {
			t.Errorf("%s tells a container %q; want %q", file, got, want)
		}
	}
	t.Log(b.shell("shared", "main", "grep -E 'VmRSS|RssAnon' /proc/1/status"))

	// An orphan is buried.
	b.shell("shared", "main", "(sh -c 'sleep 0.1; exit 3' &)")
	// One container ends; the other, and the namespace, stay.
	b.shell("shared", "main", "kill -9 $(pidof sleep | tr ' ' '\\n' | while read p; do grep -q 987 /proc/$p/cmdline && echo $p; done)")
	b.await("shared", "restarted", func(st corev1.PodStatus) bool {
		return both(st) && st.ContainerStatuses[0].RestartCount == 1 && st.ContainerStatuses[1].RestartCount == 0
	})
	ps = b.shell("shared", "other", "sleep 0.2; ps")
	if strings.Contains(ps, "Z") || strings.Contains(ps, "defunct") || !strings.Contains(ps, "sleep 987") || !strings.Contains(ps, "sleep 986") {
		t.Errorf("after a restart:\n%s", ps)
	}

	// The first process ends, which takes a hand from outside: all of it is made again.
	task, err := b.runtime.client.LoadContainer(b.runtime.ns(t.Context()), podInitID("shared"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := task.Task(b.runtime.ns(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Kill(b.runtime.ns(t.Context()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.await("shared", "whole again", func(st corev1.PodStatus) bool {
		return both(st) && st.ContainerStatuses[1].RestartCount == 1
	})

	b.set = nil
	b.apply()
	for end := time.Now().Add(runtimetest.Hope); b.manager.Running() > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	list, err := b.runtime.client.ContainerService().List(b.runtime.ns(t.Context()))
	if err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

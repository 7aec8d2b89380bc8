package podrun_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// sized is a pod with the same request and limit of CPU and memory, in a generation of its spec.
func sized(name string, generation int64, cpu, memory string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := aPod(name, func(p *corev1.Pod) {
		p.Generation = generation
		list := corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	})
	for _, f := range change {
		f(p)
	}
	return p
}

// sizes is what a pod's status says of its resources: what the container has, what is allocated, and the conditions.
func (n *node) sizes(name string) string {
	st := n.statusOf(name)
	cs := kube.ContainerStatusNamed(&st, "main")
	if cs == nil || cs.Resources == nil {
		return "none"
	}
	cpu := cs.AllocatedResources[corev1.ResourceCPU]
	out := fmt.Sprintf("%s of %s", cs.Resources.Requests.Cpu(), &cpu)
	for _, kind := range []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress} {
		if c := kube.FindCondition(st.Conditions, kind); c != nil {
			out += fmt.Sprintf(" %s(%s)@%d", kind, c.Reason, c.ObservedGeneration)
		}
	}
	return out
}

func (n *node) wantSizes(name, want string) {
	n.t.Helper()
	synctest.Wait()
	if got := n.sizes(name); got != want {
		n.t.Errorf("%s: %s; want %s", name, got, want)
	}
}

// eventsOf returns the messages of a pod's events by reason, a line each, in no order.
func (n *node) eventsOf(pod string) map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[string]string{}
	for _, e := range n.events {
		if e.InvolvedObject.Name == pod {
			out[e.Reason] += e.Message + "\n"
		}
	}
	return out
}

// TestResizeInPlace checks that a pod that runs gets other resources without a restart: the kernel is asked for them, the pod as a whole
// too, and status and events say so.
func TestResizeInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small)
		defer func() { n.stop() }()
		n.apply(true, sized("a", 1, "200m", "64Mi"))
		n.want("a", "Running main#0 running")
		n.wantSizes("a", "200m of 200m")
		n.apply(true, sized("a", 2, "400m", "128Mi"))
		n.wantSizes("a", "400m of 400m")
		n.want("a", "Running main#0 running")
		spec, bounds := n.fake.Spec("a", "main"), n.fake.Bounds("a")
		if spec.Resources.CPUQuota != 40_000 || spec.Resources.MemoryLimit != 128<<20 || bounds.CPUQuota != 40_000 || bounds.MemoryLimit != 128<<20 {
			t.Errorf("container %+v, pod %+v", spec.Resources, bounds)
		}
		if st := n.statusOf("a"); st.ObservedGeneration != 2 || st.ContainerStatuses[0].Resources.Limits.Memory().String() != "128Mi" {
			t.Errorf("%+v", st)
		}
		n.apply(true, sized("a", 3, "100m", "32Mi"))
		n.wantSizes("a", "100m of 100m")
		if b := n.fake.Bounds("a"); b.CPUQuota != 10_000 || b.MemoryLimit != 32<<20 {
			t.Errorf("pod %+v", b)
		}
		events := n.eventsOf("a")
		if want := `Pod resize completed: {"containers":[{"name":"main","resources":{"limits":{"cpu":"100m","memory":"32Mi"},"requests":{"cpu":"100m","memory":"32Mi"}}}],"generation":3}`; !strings.Contains(events["ResizeCompleted"], want+"\n") || events["ResizeStarted"] == "" {
			t.Errorf("%q", events)
		}
		if k := n.eventsOf("a")["Killing"]; k != "" {
			t.Errorf("stopped: %s", k)
		}
		// Written differently, it is the same, and nobody is asked for anything.
		calls := n.fake.Count("Update")
		n.apply(true, sized("a", 4, "0.1", "32768Ki"))
		n.wantSizes("a", "100m of 100m")
		if n.fake.Count("Update") != calls {
			t.Error("an equal size is a resize")
		}
	})
}

// TestResizeWaitsForRoom checks that a resize for which there is no room is deferred, that those who wait get the room in the order of
// their priority when it is there, and that none is given twice.
func TestResizeWaitsForRoom(t *testing.T) {
	important := func(p *corev1.Pod) { p.Spec.Priority = new(int32(5)) }
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small) // 1 CPU
		defer func() { n.stop() }()
		low, high, big := sized("low", 1, "200m", "1Mi"), sized("high", 1, "200m", "1Mi", important), sized("big", 1, "500m", "1Mi")
		n.apply(true, low, high, big)
		low, high = sized("low", 2, "500m", "1Mi"), sized("high", 2, "600m", "1Mi", important)
		n.apply(true, low, high, big)
		n.wantSizes("low", "200m of 200m PodResizePending(Deferred)@2")
		n.wantSizes("high", "200m of 200m PodResizePending(Deferred)@2")
		if m := n.eventsOf("low")["ResizeDeferred"]; !strings.HasPrefix(m, "Pod resize Deferred: {") || !strings.HasSuffix(m, `"error":"Node didn't have enough resource: cpu, requested: 500, used: 700, capacity: 1000"}`+"\n") {
			t.Errorf("event %q", m)
		}
		n.stop() // what is allocated and what is not outlives the agent
		n.start()
		n.apply(true, low, high, big)
		n.wantSizes("low", "200m of 200m PodResizePending(Deferred)@2")
		n.apply(true, low, high) // big goes
		n.wantSizes("high", "600m of 600m")
		n.wantSizes("low", "200m of 200m PodResizePending(Deferred)@2")
		n.fake.Exit("high", "main", 0)
		high = sized("high", 3, "300m", "1Mi", important)
		n.apply(true, low, high)
		n.wantSizes("low", "500m of 500m")
		// Taken back, it is no longer pending.
		n.apply(true, sized("low", 3, "900m", "1Mi"), high)
		n.wantSizes("low", "500m of 500m PodResizePending(Deferred)@3")
		n.apply(true, sized("low", 4, "500m", "1Mi"), high)
		n.wantSizes("low", "500m of 500m")
		n.apply(true, sized("low", 5, "1001m", "1Mi"), high)
		n.wantSizes("low", "500m of 500m PodResizePending(Infeasible)@5")
	})
}

// TestResizeFails checks that a limit below what is used is not set, that the reason is in the status, and that the resize is done when
// there is room in memory.
func TestResizeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small)
		defer func() { n.stop() }()
		n.fake.MemoryUsed = map[string]int64{"main": 40 << 20, "": 41 << 20}
		n.apply(true, sized("a", 1, "200m", "64Mi"))
		n.apply(true, sized("a", 2, "200m", "32Mi"))
		n.wantSizes("a", "200m of 200m PodResizeInProgress(Error)@2")
		st := n.statusOf("a")
		const want = `cannot decrease memory limits: [attempting to set pod memory limit (33554432) below current usage (42991616), attempting to set container "main" memory limit (33554432) below current usage (41943040)]`
		if c := kube.FindCondition(st.Conditions, corev1.PodResizeInProgress); c.Message != want {
			t.Errorf("message %q", c.Message)
		}
		if got := st.ContainerStatuses[0].Resources.Limits.Memory().String(); got != "64Mi" || n.fake.Bounds("a").MemoryLimit != 64<<20 {
			t.Errorf("the container has %s, the pod %d", got, n.fake.Bounds("a").MemoryLimit)
		}
		n.fake.MemoryUsed = map[string]int64{}
		time.Sleep(2 * time.Second)
		n.wantSizes("a", "200m of 200m")
		if got := n.fake.Bounds("a").MemoryLimit; got != 32<<20 {
			t.Errorf("the pod has %d", got)
		}
		n.fake.UpdateError = func(string) error { return errors.New("the runtime is away") }
		n.apply(true, sized("a", 3, "300m", "32Mi"))
		n.wantSizes("a", "200m of 300m PodResizeInProgress(Error)@3")
		if m := n.eventsOf("a")["ResizeError"]; !strings.Contains(m, `"generation":3,"error":"the runtime is away"}`) {
			t.Errorf("event %q", m)
		}
		n.stop()
		n.fake.UpdateError = nil
		n.start() // the next life of the agent does what the last one could not
		n.apply(true, sized("a", 3, "300m", "32Mi"))
		n.wantSizes("a", "300m of 300m")
		n.want("a", "Running main#0 running")
	})
}

// TestResizeRestarts checks that a container whose policy says so is started again with its new resources, and counted as restarted.
func TestResizeRestarts(t *testing.T) {
	policy := func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "memory", RestartPolicy: corev1.RestartContainer}}
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small)
		defer func() { n.stop() }()
		n.apply(true, sized("a", 1, "200m", "64Mi", policy))
		n.apply(true, sized("a", 2, "300m", "64Mi", policy))
		n.want("a", "Running main#0 running")
		n.wantSizes("a", "300m of 300m")
		n.apply(true, sized("a", 3, "300m", "32Mi", policy))
		n.want("a", "Running main#1 running")
		if spec := n.fake.Spec("a", "main"); spec.Resources.MemoryLimit != 32<<20 || n.fake.Bounds("a").MemoryLimit != 32<<20 {
			t.Errorf("container %+v, pod %+v", spec.Resources, n.fake.Bounds("a"))
		}
		if m := n.eventsOf("a")["Killing"]; m != "Container main resize requires restart\n" {
			t.Errorf("event %q", m)
		}
	})
}

// TestResizeOffline checks that a node without its hub, after a reboot, starts a pod with what its cache says, and not with what the pod
// had before.
func TestResizeOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small)
		n.apply(true, sized("a", 1, "200m", "64Mi"))
		n.want("a", "Running main#0 running")
		n.stop()
		n.fake.Exit("a", "main", 137)
		n.start()
		defer func() { n.stop() }()
		n.apply(false, sized("a", 2, "400m", "64Mi"))
		n.want("a", "Running main#1 running")
		n.wantSizes("a", "400m of 400m")
		if spec := n.fake.Spec("a", "main"); spec.Resources.CPUQuota != 40_000 {
			t.Errorf("%+v", spec.Resources)
		}
	})
}

// TestShareText checks that what is kept with a container is read as it was written, and that other spellings are no difference.
func TestShareText(t *testing.T) {
	pod := sized("a", 1, "1", "1Gi")
	s, known := podspec.ParseShare(podspec.ShareOf(pod, &pod.Spec.Containers[0]).String())
	other := sized("a", 1, "1000m", "1024Mi")
	if !known || len(s.Differs(podspec.ShareOf(other, &other.Spec.Containers[0]))) > 0 {
		t.Errorf("%v %v", s, known)
	}
	other = sized("a", 1, "1", "1Gi", func(p *corev1.Pod) { delete(p.Spec.Containers[0].Resources.Limits, "cpu") })
	if got := s.Differs(podspec.ShareOf(other, &other.Spec.Containers[0])); len(got) != 1 || got[0] != "cpu" {
		t.Errorf("differs in %v", got)
	}
	if _, known := podspec.ParseShare(""); known {
		t.Error("nothing is a share")
	}
}

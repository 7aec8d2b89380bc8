package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

const sizedManifest = `{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {terminationGracePeriodSeconds: 0, containers: [
  {name: c, image: "petrel.local/hello:v1", args: [serve, --listen, ':8080'], resources: {requests: {cpu: %s, memory: 64Mi}, limits: {cpu: %[2]s, memory: 64Mi}},
   resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}]}}`

// quota reads what the kernel lets a container use of a CPU, in microseconds of each 100,000, and of memory, in bytes; id "" is the pod.
func quota(t *testing.T, uid, id string) string {
	t.Helper()
	read := func(elem ...string) string {
		b, err := os.ReadFile(filepath.Join(append([]string{"/sys/fs/cgroup"}, elem...)...))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(b))[0]
	}
	group := filepath.Join("petrel/pod"+uid, id)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return read(group, "cpu.max") + " " + read(group, "memory.max")
	}
	return read("cpu", group, "cpu.cfs_quota_us") + " " + read("memory", group, "memory.limit_in_bytes")
}

// TestResize resizes pods as a user does and reads what the kernel makes of it: in place, by a restart, with no room, beyond the node,
// and over a reboot of a node that has lost its hub.
func TestResize(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err != nil {
		if b, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); !strings.Contains(string(b), "memory") {
			t.Skip("this machine has no memory cgroup")
		}
	}
	t.Parallel()
	ms := harness.LAN(t, "resize", 2)
	h := harness.StartHub(t, ms[0])
	edge := h.Join(ms[1], "edge")
	patch := func(pod, cpu, memory string) (string, error) {
		return h.TryKubectl("patch", "pod", pod, "--subresource", "resize", "--patch",
			fmt.Sprintf(`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":%q,"memory":%q},"limits":{"cpu":%[1]q,"memory":%[2]q}}}]}}`, cpu, memory))
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, args := range [][]string{{"get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status}{'\\n'}{end}"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
			if out, err := h.TryKubectl(args...); err == nil {
				t.Log(out)
			}
		}
	})
	// sized waits until a pod has what it wants and its conditions are gone, and compares that with the kernel.
	sized := func(pod, cpu, memory, kernel string, restarts int) {
		t.Helper()
		want := fmt.Sprintf("%s %s %s %d true", cpu, cpu, memory, restarts)
		h.Eventually(time.Minute, pod+" has "+want, func() error {
			got, err := h.TryKubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].resources.limits.cpu} {.status.containerStatuses[0].allocatedResources.cpu} "+
				"{.status.containerStatuses[0].resources.limits.memory} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}"+
				"{.status.conditions[?(@.type=='PodResizeInProgress')].message}{.status.conditions[?(@.type=='PodResizePending')].message}")
			if err == nil && got != want {
				err = fmt.Errorf("%q", got)
			}
			return err
		})
		life := strings.Fields(h.LifeOf(pod))
		uid, id := life[0], strings.TrimPrefix(life[1], "containerd://")
		if got := quota(t, uid, id); got != kernel {
			t.Errorf("the container of %s has %s; want %s", pod, got, kernel)
		}
		if got := quota(t, uid, ""); got != kernel {
			t.Errorf("%s has %s; want %s", pod, got, kernel)
		}
		if gen := h.Kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}"); strings.Fields(gen)[0] != strings.Fields(gen)[1] {
			t.Errorf("generations %s", gen)
		}
	}
	h.Apply(fmt.Sprintf(sizedManifest, "p", "100m"))
	h.Running("p")
	sized("p", "100m", "64Mi", "10000 67108864", 0)
	for _, step := range []struct {
		cpu, memory, kernel string
		restarts            int
	}{{"300m", "64Mi", "30000 67108864", 0}, {"50m", "64Mi", "5000 67108864", 0}, {"150m", "96Mi", "15000 100663296", 1}, {"120m", "48Mi", "12000 50331648", 2}} {
		if out, err := patch("p", step.cpu, step.memory); err != nil {
			t.Fatal(out, err)
		}
		sized("p", step.cpu, step.memory, step.kernel, step.restarts)
	}

	h.Sub("refused", func(t *testing.T) {
		if out, err := patch("p", "1000", "48Mi"); err == nil || !strings.Contains(err.Error(), "node didn't have enough allocatable resources: cpu, requested: 1000000") {
			t.Errorf("more than the node: %s %v", out, err)
		}
		if out, err := h.TryKubectl("patch", "pod", "p", "--subresource", "resize", "--patch", `{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1"}}}]}}`); err == nil || !strings.Contains(err.Error(), "Pod QOS Class may not change as a result of resizing") {
			t.Errorf("another QoS class: %s %v", out, err)
		}
	})
	h.Sub("deferred", func(t *testing.T) {
		h.Apply(fmt.Sprintf(sizedManifest, "q", "100m"))
		h.Running("q")
		all := h.Kubectl("get", "node", "edge", "-o", "jsonpath={.status.allocatable.cpu}")
		if out, err := patch("p", all, "48Mi"); err != nil {
			t.Fatal(out, err)
		}
		h.Kubectl("wait", "--for=jsonpath={.status.conditions[?(@.type=='PodResizePending')].reason}=Deferred", "pod/p", "--timeout=2m")
		if why := h.Kubectl("get", "events", "--field-selector", "reason=ResizeDeferred", "-o", "jsonpath={.items[*].message}"); !strings.Contains(why, "Node didn't have enough resource: cpu") {
			t.Errorf("event %q", why)
		}
		h.Kubectl("delete", "pod", "q", "--grace-period=0", "--force")
		h.Eventually(time.Minute, "p gets the room of q", func() error {
			got, err := h.TryKubectl("get", "pod", "p", "-o", "jsonpath={.status.containerStatuses[0].resources.limits.cpu}")
			if err == nil && got != all {
				err = fmt.Errorf("it has %s of %s", got, all)
			}
			return err
		})
	})
	h.Sub("offline", func(t *testing.T) {
		if out, err := patch("p", "200m", "48Mi"); err != nil {
			t.Fatal(out, err)
		}
		sized("p", "200m", "48Mi", "20000 50331648", 2)
		uid := strings.Fields(h.LifeOf("p"))[0]
		edge.Stop(15) // an agent that ends leaves nothing, with --no-keep-pods; its next life knows the size from its cache
		ms[1].Unplug(t)
		edge.Start()
		harness.Eventually(t, time.Minute, "the pod runs without the hub", func() error {
			if harness.ContainerPID(uid) == 0 {
				return fmt.Errorf("no process")
			}
			return nil
		})
		if got := quota(t, uid, ""); got != "20000 50331648" {
			t.Errorf("without its hub the pod has %s", got)
		}
		edge.PowerCut()
		edge.Start()
		harness.Eventually(t, time.Minute, "the pod runs after a reboot", func() error {
			if harness.ContainerPID(uid) == 0 {
				return fmt.Errorf("no process")
			}
			return nil
		})
		if got := quota(t, uid, ""); got != "20000 50331648" {
			t.Errorf("after a reboot without its hub the pod has %s", got)
		}
		ms[1].Plug(t)
		h.Ready("edge")
	})
}

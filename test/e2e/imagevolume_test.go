package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/test/harness"
)

// TestImageVolumes mounts an image of a registry into a pod, which waits for it as for its own image. A later pod gets what the registry has under that
// name by then. After a power cut, without the hub and the registry, each has its own content again.
func TestImageVolumes(t *testing.T) {
	harness.Long(t)
	ms, h := startBox(t, "imagevol", 2)
	host, push := harness.StartRegistry(t, ms[0])
	edge := h.Join(ms[1], "edge", "--plain-http-registry", host)
	data := func(text string) v1.Image {
		return runtimetest.WithFile(t, runtimetest.Busybox(t), "etc/hostname", text+"\n")
	}
	pod := func(name string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {terminationGracePeriodSeconds: 0,
			containers: [{name: c, image: "petrel.local/box:v1", command: [sh, -c, "cat /data/etc/hostname >> /out/lines; touch /data/x 2>> /out/refused; exec sleep 100000"],
			  volumeMounts: [{name: data, mountPath: /data}, {name: out, mountPath: /out}]}],
			volumes: [{name: data, image: {reference: "%s/team/data:1", pullPolicy: Always}}, {name: out, emptyDir: {}}]}}`, name, host)
	}
	h.Apply(pod("first"))
	h.Eventually(time.Minute, "the pod waits for its volume's image", func() error {
		got, err := h.TryKubectl("get", "pod", "first", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")
		if err != nil || got != "ErrImagePull" && got != "ImagePullBackOff" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
	push("team/data:1", data("one"))
	h.Kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=120s")
	uids := map[string]string{"first": h.Kubectl("get", "pod", "first", "-o", "jsonpath={.metadata.uid}")}
	wrote := func(pod, file string) string {
		b, err := os.ReadFile(filepath.Join(edge.Dir, "agent", "pods", uids[pod], ".volumes", "out", file))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if got := wrote("first", "lines") + wrote("first", "refused"); got != "one\ntouch: /data/x: Read-only file system\n" {
		t.Errorf("the pod read and wrote %q", got)
	}
	push("team/data:1", data("two"))
	h.Apply(pod("second"))
	h.Kubectl("wait", "--for=condition=Ready", "pod/second", "--timeout=120s")
	uids["second"] = h.Kubectl("get", "pod", "second", "-o", "jsonpath={.metadata.uid}")
	if got := wrote("second", "lines"); got != "two\n" {
		t.Errorf("a new pod read %q", got)
	}

	ms[1].Unplug(t)
	edge.PowerCut()
	edge.Start()
	harness.Eventually(t, 90*time.Second, "the pods have their volumes again without hub and registry", func() error {
		if got := wrote("first", "lines") + wrote("second", "lines"); got != "one\none\ntwo\ntwo\n" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	ms[1].Plug(t)
	h.Kubectl("delete", "pod", "first", "second", "--timeout=60s")
	harness.Eventually(t, 30*time.Second, "the node has cleaned up", func() error {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, filepath.Join(edge.Dir, "agent", "pods")+"/") {
				return fmt.Errorf("a mount is left: %s", line)
			}
		}
		return nil
	})
}

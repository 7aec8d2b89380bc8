package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/programs"
	"petrel.dev/petrel/test/harness"
)

// TestNothingElseInstalled runs pods on a machine that has no containerd, no shim and no runc but those inside petrel: first
// with a hub, then after a power cut without one, with one of the programs damaged on the disk.
func TestNothingElseInstalled(t *testing.T) {
	if len(harness.Inside()) == 0 {
		t.Skip("this binary has no programs inside: PETREL_BIN names one that `make build` made")
	}
	t.Parallel()
	ms := harness.LAN(t, "single", 2)
	h := harness.StartHub(t, ms[0])
	h.AgentEnv = []string{"PATH=" + t.TempDir()} // where no program is
	a := h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(helloManifest, 3))
	h.Available("hello")
	version := strings.TrimPrefix(harness.Inside()[programs.Containerd], "v")
	if got := h.Kubectl("get", "node", "edge", "-o", "jsonpath={.status.nodeInfo.containerRuntimeVersion}"); !strings.Contains(got, version) {
		t.Errorf("the node's runtime is %s, inside is %s", got, version)
	}
	uids := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))

	h.Stop(syscall.SIGKILL)
	a.PowerCut()
	if err := os.Truncate(a.Dir+"/agent/bin/"+"containerd-shim-runc-v2", 1<<20); err != nil {
		t.Fatal(err)
	}
	a.Args = nil
	a.Start()
	harness.Eventually(t, 60*time.Second, "the pods run again, with no hub", func() error {
		for _, uid := range uids {
			if harness.ContainerPID(uid) == 0 {
				return fmt.Errorf("pod %s does not run", uid)
			}
		}
		return nil
	})
}

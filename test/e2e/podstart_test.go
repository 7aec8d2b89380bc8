package e2e

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestPodStart measures, for `make bench`, how long a pod takes from its creation to Running as a watching client sees
// it: API, scheduler, link, network namespace, containerd, runc, and the way back. It asserts no time.
func TestPodStart(t *testing.T) {
	if os.Getenv("PETREL_BENCH") == "" {
		t.Skip("a measurement; `make bench` runs it")
	}
	ms := harness.LAN(t, "podstart", 2)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "edge")

	watch := h.On.Command(t.Context(), harness.KubectlPath, "--kubeconfig", h.Kubeconfig, "get", "pods", "--watch-only", "-o",
		`jsonpath={.metadata.name} {.status.phase}{"\n"}`)
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = watch.Process.Kill()
		_ = watch.Wait() // it was killed
	})
	type seen struct {
		pod, phase string
		at         time.Time
	}
	changes := make(chan seen)
	go func() {
		defer close(changes)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			pod, phase, _ := strings.Cut(lines.Text(), " ")
			select {
			case changes <- seen{pod, phase, time.Now()}:
			case <-t.Context().Done():
				return
			}
		}
	}()

	const pods = 10
	var all []time.Duration
	for i := range pods {
		name := fmt.Sprintf("start-%d", i)
		created := make(chan error, 1)
		go func() {
			_, err := h.TryKubectl("run", name, "--image=petrel.local/hello:v1", "--restart=Never", "--", "serve", "--listen", ":8080")
			created <- err
		}()
		var began time.Time
		for running := false; !running; {
			select {
			case c, ok := <-changes:
				switch {
				case !ok:
					t.Fatal("kubectl's watch has ended")
				case c.pod == name && began.IsZero():
					began = c.at
				case c.pod == name && c.phase == "Running":
					all = append(all, c.at.Sub(began))
					running = true
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("%s is not Running after two minutes", name)
			}
		}
		if err := <-created; err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	t.Logf("pod start, created to Running: p50 %s, fastest %s, slowest %s of %d", all[pods/2].Round(time.Millisecond),
		all[0].Round(time.Millisecond), all[pods-1].Round(time.Millisecond), pods)
}

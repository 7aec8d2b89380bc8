package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// machineDir is a machine made of files.
func machineDir(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	base := map[string]string{
		"proc/meminfo":                   "MemTotal:        948280 kB\nMemFree: 10000 kB\nMemAvailable:     512000 kB\n",
		"proc/loadavg":                   "0.00 0.01 0.05 1/150 4242\n",
		"proc/sys/kernel/pid_max":        "32768\n",
		"proc/sys/kernel/osrelease":      "6.12.25+rpt-rpi-v8\n",
		"proc/sys/kernel/random/boot_id": "0d7c1a9e-1111-2222-3333-444455556666\n",
		"etc/machine-id":                 "abcdef0123456789\n",
		"etc/os-release":                 "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"proc/device-tree/model":         "Raspberry Pi 3 Model B Plus Rev 1.3\x00",
		"proc/device-tree/serial-number": "00000000deadbeef\x00",
		"sys/class/dmi/id/none":          "",
	}
	for k, v := range files {
		base[k] = v
	}
	for k, v := range base {
		p := filepath.Join(root, k)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func cond(st corev1.NodeStatus, kind corev1.NodeConditionType) corev1.NodeCondition {
	for _, c := range st.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// TestNetworkProblems checks that what does not work in the network is a condition as long as it does not, and of bounded
// length.
func TestNetworkProblems(t *testing.T) {
	var problems []string
	root := machineDir(t, nil)
	n, err := New(Config{Name: "pi", Root: root, DataDir: root, Problems: func() []string { return problems }})
	if err != nil {
		t.Fatal(err)
	}
	if c := cond(n.Status(), "petrel.dev/Network"); c.Type != "" {
		t.Errorf("without problems: %+v", c)
	}
	problems = []string{"service guard: no nftables"}
	st := n.Status()
	if c := cond(st, "petrel.dev/Network"); c.Status != corev1.ConditionFalse || c.Reason != "NetworkProblems" || c.Message != problems[0] {
		t.Errorf("one problem: %+v", c)
	}
	if c := cond(st, corev1.NodeReady); c.Status != corev1.ConditionTrue {
		t.Errorf("pods run all the same: %+v", c)
	}
	for range 500 {
		problems = append(problems, strings.Repeat("é", 1000))
	}
	if c := cond(n.Status(), "petrel.dev/Network"); len(c.Message) > 4<<10 || !strings.Contains(c.Message, "and 497 more") || !utf8.ValidString(c.Message) {
		t.Errorf("many: %d bytes: %s", len(c.Message), c.Message)
	}
	problems = nil
	if c := cond(n.Status(), "petrel.dev/Network"); c.Type != "" {
		t.Errorf("when they are over: %+v", c)
	}
}

func TestBoard(t *testing.T) {
	root := machineDir(t, nil)
	n, err := New(Config{Name: "pi", Root: root, DataDir: root, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		Labels: map[string]string{"site": "roof"}, RuntimeVersion: "containerd://1.6.20", NoMemoryLimits: "do this"})
	if err != nil {
		t.Fatal(err)
	}
	st := n.Status()
	if got := st.Capacity.Memory().Value(); got != 948280<<10 {
		t.Errorf("memory %d", got)
	}
	if got := st.Allocatable.Memory().Value(); got != 948280<<10-minMemory {
		t.Errorf("allocatable memory %d", got)
	}
	if st.Capacity.Pods().Value() != 110 || st.Capacity.Cpu().Value() != int64(runtime.NumCPU()) {
		t.Errorf("capacity %v", st.Capacity)
	}
	i := st.NodeInfo
	if i.OSImage != "Debian GNU/Linux 12 (bookworm)" || i.KernelVersion != "6.12.25+rpt-rpi-v8" || i.MachineID != "abcdef0123456789" ||
		i.SystemUUID != "00000000deadbeef" || i.Architecture != runtime.GOARCH || i.ContainerRuntimeVersion != "containerd://1.6.20" || i.KubeletVersion == "" {
		t.Errorf("node info %+v", i)
	}
	if n.labels["petrel.dev/board"] != "raspberry-pi-3-model-b-plus-rev-1.3" || n.labels["kubernetes.io/hostname"] != "pi" || n.labels["site"] != "roof" {
		t.Errorf("labels %v", n.labels)
	}
	if len(st.Addresses) != 2 || st.Addresses[0].Address != "192.0.2.7" || st.Addresses[1].Address != "pi" {
		t.Errorf("addresses %v", st.Addresses)
	}
	if h := st.RuntimeHandlers; len(h) != 2 || h[0].Name != "" || h[1].Name != "runc" {
		t.Errorf("runtime handlers %+v", h)
	}
	if h := st.RuntimeHandlers[0].Features; !*st.Features.SupplementalGroupsPolicy || *h.UserNamespaces || *h.RecursiveReadOnlyMounts {
		t.Errorf("features %+v, of the runtime %+v", st.Features, h)
	}
	if c := cond(st, "petrel.dev/MemoryLimits"); c.Status != corev1.ConditionFalse || c.Message == "" {
		t.Errorf("memory limits: %+v", c)
	}
}

func TestPressureComesAtOnceAndGoesSlowly(t *testing.T) {
	root := machineDir(t, nil)
	now := time.Unix(1_700_000_000, 0)
	why := "no network"
	n, err := New(Config{Name: "pi", Root: root, DataDir: root, Now: func() time.Time { return now }, NotReady: func() string { return why }})
	if err != nil {
		t.Fatal(err)
	}
	mem := func(kb string) {
		if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 948280 kB\nMemAvailable: "+kb+" kB\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(kind corev1.NodeConditionType, want corev1.ConditionStatus, since time.Time) {
		t.Helper()
		c := cond(n.Status(), kind)
		if c.Status != want || !c.LastTransitionTime.Time.Equal(since) {
			t.Errorf("%s is %s since %v, want %s since %v", kind, c.Status, c.LastTransitionTime.Time, want, since)
		}
	}
	start := now
	check(corev1.NodeMemoryPressure, corev1.ConditionFalse, start)
	check(corev1.NodeReady, corev1.ConditionFalse, start)
	why = ""
	now = now.Add(10 * time.Second)
	check(corev1.NodeReady, corev1.ConditionTrue, now)
	mem("50000")
	low := now
	check(corev1.NodeMemoryPressure, corev1.ConditionTrue, low)
	mem("500000")
	now = now.Add(30 * time.Second)
	check(corev1.NodeMemoryPressure, corev1.ConditionTrue, low)
	now = now.Add(time.Minute)
	check(corev1.NodeMemoryPressure, corev1.ConditionFalse, now)
	check(corev1.NodeReady, corev1.ConditionTrue, low)
}

func TestReportsOnlyWhatChanges(t *testing.T) {
	root := machineDir(t, nil)
	synctest.Test(t, func(t *testing.T) {
		ready := ""
		n, err := New(Config{Name: "pi", Root: root, DataDir: root, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, NotReady: func() string { return ready }})
		if err != nil {
			t.Fatal(err)
		}
		var got []wire.Object
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx, func(o wire.Object) error { got = append(got, o); return nil }) }()
		synctest.Wait()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if len(got) != 1 {
			t.Errorf("%d reports in an idle day, want 1", len(got))
		}
		ready = "broken"
		n.Recheck()
		synctest.Wait()
		if len(got) != 2 {
			t.Fatalf("%d reports after a change, want 2", len(got))
		}
		var r wire.NodeReport
		var st corev1.NodeStatus
		if json.Unmarshal(got[1].Data, &r) != nil || json.Unmarshal(r.Status, &st) != nil || cond(st, corev1.NodeReady).Message != "broken" {
			t.Errorf("second report: %s", got[1].Data)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestPanicsAreReported checks that a panic that the agent contains is in its next report, and changes that.
func TestPanicsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := machineDir(t, nil)
		count := func() uint64 { return contain.Counts()["test/node"] }
		// Its addresses are given: those of this machine change when other tests make networks.
		n, err := New(Config{Name: "pi", Root: root, DataDir: root, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, Panics: count})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- n.Run(ctx, func(o wire.Object) error {
				var r wire.NodeReport
				err := json.Unmarshal(o.Data, &r)
				got = append(got, r.Panics)
				return err
			})
		}()
		time.Sleep(time.Hour + time.Millisecond) // between two looks: one at this very moment could see the first panic alone
		remove := contain.Inject(func(site, _ string) {
			if site == "test/node" {
				panic("injected")
			}
		})
		for range 2 {
			contain.Go(nil, "test/node", "k", func() {})
		}
		remove()
		before := count() - 2
		time.Sleep(time.Hour)
		if want := []uint64{before, before + 2}; !slices.Equal(got, want) {
			t.Errorf("reported %d, want %d", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDefaultAddressIsNotLoopback(t *testing.T) {
	for _, a := range defaultAddresses("") {
		if a.IsLoopback() || !a.IsValid() {
			t.Errorf("found %v", a)
		}
	}
}

// TestPodBridgeIsNoAddress checks that a board whose network is not up yet does not take its own pod bridge for the way to it,
// whatever its name.
func TestPodBridgeIsNoAddress(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root for a network namespace")
		}
		t.Skip("needs root for a network namespace")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not given back: the thread ends with its network namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, args := range []string{"link add pods0 type bridge", "addr add 10.42.0.1/24 dev pods0", "link set pods0 up"} {
				if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
					return fmt.Errorf("ip %s: %w: %s", args, err, out)
				}
			}
			if list := defaultAddresses("other"); len(list) != 1 {
				return fmt.Errorf("a bridge that is not the agent's: %v", list)
			}
			if list := defaultAddresses("pods0"); len(list) != 0 {
				return fmt.Errorf("found %v", list)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

package cgroupstat

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, root string, files map[string]string) Reader {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Reader{Root: root}
}

// TestOf reads the same use from cgroups of both versions, and what a kernel without the memory controller has.
func TestOf(t *testing.T) {
	const cg = "/petrel/podu/c"
	for name, c := range map[string]struct {
		files  map[string]string
		memory bool
	}{
		"version 2": {map[string]string{
			"sys/fs/cgroup/cgroup.controllers":       "cpu memory pids\n",
			"sys/fs/cgroup" + cg + "/cpu.stat":       "usage_usec 2500000\nuser_usec 1\n",
			"sys/fs/cgroup" + cg + "/memory.current": "1000\n",
			"sys/fs/cgroup" + cg + "/memory.stat":    "anon 500\ninactive_file 300\npgfault 7\npgmajfault 2\n",
		}, true},
		"version 1": {map[string]string{
			"sys/fs/cgroup/cpuacct" + cg + "/cpuacct.usage":        "2500000000\n",
			"sys/fs/cgroup/memory" + cg + "/memory.usage_in_bytes": "1000\n",
			"sys/fs/cgroup/memory" + cg + "/memory.stat":           "rss 1\ntotal_rss 500\ntotal_inactive_file 300\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
		}, true},
		"version 2 without memory": {map[string]string{
			"sys/fs/cgroup/cgroup.controllers": "cpu\n", "sys/fs/cgroup" + cg + "/cpu.stat": "usage_usec 2500000\n"}, false},
		"version 1 without memory": {map[string]string{"sys/fs/cgroup/cpu" + cg + "/cpuacct.usage": "2500000000\n"}, false},
	} {
		u, err := write(t, t.TempDir(), c.files).Of(cg)
		if err != nil || !u.HasCPU || u.CPU != 2500*time.Millisecond || u.HasMemory != c.memory {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
		if c.memory && (u.Memory != 1000 || u.WorkingSet != 700 || u.RSS != 500 || u.PageFaults != 7 || u.MajorFaults != 2) {
			t.Errorf("%s: %+v", name, u)
		}
		if _, err := write(t, t.TempDir(), c.files).Of("/petrel/gone"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a cgroup that is gone: %v", name, err)
		}
	}
}

func TestMachine(t *testing.T) {
	r := write(t, t.TempDir(), map[string]string{
		"proc/stat":    "cpu  100 0 50 9999 9999 10 20 20 5 0\ncpu0 1 1 1 1\nbtime 1700000000\n",
		"proc/meminfo": "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nAnonPages: 50 kB\n",
		"proc/vmstat":  "pgfault 7\npgmajfault 2\n",
	})
	u, started, err := r.Machine()
	if err != nil || u.CPU != 2*time.Second || started.Unix() != 1700000000 || u.Memory != 600<<10 || u.WorkingSet != 500<<10 ||
		u.Available != 500<<10 || u.RSS != 50<<10 || u.PageFaults != 7 || u.MajorFaults != 2 {
		t.Errorf("%+v, %v, %v", u, started, err)
	}
	if u, started, err := (Reader{}).Machine(); err != nil || !u.HasCPU || u.WorkingSet == 0 || started.IsZero() {
		t.Errorf("this machine: %+v, %v, %v", u, started, err)
	}
}

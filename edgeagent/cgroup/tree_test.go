package cgroup

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// cgroupFiles makes a cgroup file system of plain files.
func cgroupFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var (
	version1 = map[string]string{"cpu/cpu.shares": "1024", "memory/memory.limit_in_bytes": "0", "pids/cgroup.procs": ""}
	version2 = map[string]string{"cgroup.controllers": "cpuset cpu io memory pids"}
)

const absent = "no such file"

// with is files with one more that is there already, as the kernel makes it.
func with(files map[string]string, name string) map[string]string {
	out := maps.Clone(files)
	out[name] = "50000"
	return out
}

// TestCgroupFiles covers what is written where, in both versions of cgroups, and that a limit which is gone is lifted.
func TestCgroupFiles(t *testing.T) {
	full := cruntime.Resources{CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000, MemoryLimit: 64 << 20, PidsLimit: 4096}
	tests := []struct {
		name  string
		files map[string]string
		res   cruntime.Resources
		want  map[string]string
	}{
		{"version 1", version1, full, map[string]string{"cpu/petrel/podx/cpu.shares": "512", "cpu/petrel/podx/cpu.cfs_quota_us": "50000",
			"cpu/petrel/podx/cpu.cfs_period_us": "100000", "memory/petrel/podx/memory.limit_in_bytes": "67108864", "pids/petrel/podx/pids.max": "4096"}},
		{"version 1, no limits", with(version1, "cpu/petrel/podx/cpu.cfs_quota_us"), cruntime.Resources{}, map[string]string{"cpu/petrel/podx/cpu.shares": "2", "cpu/petrel/podx/cpu.cfs_quota_us": "-1",
			"memory/petrel/podx/memory.limit_in_bytes": "-1", "pids/petrel/podx/pids.max": "max"}},
		{"version 2", version2, full, map[string]string{"cgroup.subtree_control": "+cpu +memory +pids", "petrel/cgroup.subtree_control": "+cpu +memory +pids",
			"petrel/podx/cgroup.subtree_control": "+cpu +memory +pids", "petrel/podx/cpu.weight": "20", "petrel/podx/cpu.max": "50000 100000",
			"petrel/podx/memory.max": "67108864", "petrel/podx/pids.max": "4096"}},
		{"version 2, no limits", with(version2, "petrel/podx/cpu.max"), cruntime.Resources{}, map[string]string{"petrel/podx/cpu.weight": "1", "petrel/podx/cpu.max": "max 100000",
			"petrel/podx/memory.max": "max", "petrel/podx/pids.max": "max"}},
		{"version 1, no limits, no CFS bandwidth", version1, cruntime.Resources{}, map[string]string{"cpu/petrel/podx/cpu.cfs_quota_us": absent}},
		{"version 2, no limits, no CFS bandwidth", version2, cruntime.Resources{}, map[string]string{"petrel/podx/cpu.max": absent}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := cgroupFiles(t, tt.files)
			c := Detect(root, "/nowhere")
			if err := c.MakePod("x", tt.res); err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				b, err := os.ReadFile(filepath.Join(root, name))
				if want == absent {
					if !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s: %q, %v; the kernel has no such file, and would fail", name, b, err)
					}
				} else if err != nil || string(b) != want {
					t.Errorf("%s: %q, %v; want %q", name, b, err, want)
				}
			}
		})
	}
	root := cgroupFiles(t, version2)
	if err := Detect(root, "/nowhere").BoundAll(1 << 30); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "petrel/memory.max")); err != nil || string(b) != "1073741824" {
		t.Errorf("all pods together have %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "petrel/pids.max")); err != nil || string(b) == "max" || string(b) == "0" {
		t.Errorf("all pods together have %q processes, %v", b, err)
	}
}

// TestNoMemoryReasons checks that cgroups that are not mounted are another matter than a kernel that has them off.
func TestNoMemoryReasons(t *testing.T) {
	const on, off = "#subsys_name hierarchy num_cgroups enabled\nmemory\t4\t61\t1\n", "#subsys_name hierarchy num_cgroups enabled\nmemory\t0\t61\t0\n"
	tests := []struct {
		name, kernel string
		files        map[string]string
		reason, text string
		ready        bool
	}{
		{"all there", on, version2, "", "", true},
		{"nothing mounted", on, nil, "CgroupsNotMounted", "mount -t cgroup2", false},
		{"off in the kernel, version 1", off, map[string]string{"cpu/cpu.shares": "", "cpu/cgroup.procs": ""}, "NoMemoryCgroup", "cmdline.txt", true},
		{"off in the kernel, version 2", off, map[string]string{"cgroup.controllers": "cpu pids"}, "NoMemoryCgroup", "cmdline.txt", true},
		{"not mounted, version 1", on, map[string]string{"cpu/cpu.shares": "", "cpu/cgroup.procs": ""}, "MemoryCgroupNotMounted", "mount -t cgroup -o memory", true},
		{"not handed down, version 2", on, map[string]string{"cgroup.controllers": "cpu pids"}, "MemoryCgroupNotHere", "delegated", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kernel := filepath.Join(cgroupFiles(t, map[string]string{"cgroups": tt.kernel}), "cgroups")
			c := Detect(cgroupFiles(t, tt.files), kernel)
			reason, why := c.NoMemory()
			if reason != tt.reason || !strings.Contains(why, tt.text) {
				t.Errorf("%s: %s", reason, why)
			}
			if (c.NotMounted() == "") != tt.ready {
				t.Errorf("not ready: %q", c.NotMounted())
			}
		})
	}
}

// TestRemoveEmpty keeps the parent of all pods while another agent's pod is in it, in each hierarchy.
func TestRemoveEmpty(t *testing.T) {
	for name, files := range map[string]map[string]string{"version 1": version1, "version 2": version2} {
		root := t.TempDir() // not of files: those of a real cgroup go with it
		c := Detect(cgroupFiles(t, files), "/nowhere")
		c.root = root
		parents := []string{"petrel"}
		if !c.Unified {
			parents = []string{"cpu/petrel", "memory/petrel"}
		}
		for _, p := range parents {
			if err := os.MkdirAll(filepath.Join(root, p, "podx"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.RemoveEmpty(); err != nil {
			t.Errorf("%s, with a pod: %v", name, err)
		}
		for _, p := range parents {
			if err := os.Remove(filepath.Join(root, p, "podx")); err != nil {
				t.Errorf("%s: the pod's cgroup is gone with its parent: %v", name, err)
			}
		}
		if err := c.RemoveEmpty(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, p := range parents {
			if _, err := os.Stat(filepath.Join(root, p)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s is left: %v", name, p, err)
			}
		}
	}
}

// TestBoundsOfAllPodsComeBack has another agent remove the parent of all pods while there is none: the next pod has its limits again. What
// another agent has set stays.
func TestBoundsOfAllPodsComeBack(t *testing.T) {
	for _, v := range []struct {
		name  string
		files map[string]string
		knob  string
	}{
		{"version 1", version1, "memory/petrel/memory.limit_in_bytes"},
		{"version 2", version2, "petrel/memory.max"},
		{"version 1, no memory", map[string]string{"cpu/cpu.shares": "1024", "pids/cgroup.procs": ""}, "pids/petrel/pids.max"},
		{"version 2, no memory", map[string]string{"cgroup.controllers": "cpu pids"}, "petrel/pids.max"},
	} {
		t.Run(v.name, func(t *testing.T) {
			root := cgroupFiles(t, v.files)
			knob, tree := filepath.Join(root, v.knob), Detect(root, filepath.Join(root, "none"))
			read := func() string {
				b, err := os.ReadFile(knob)
				if err != nil {
					return absent
				}
				return string(b)
			}
			if err := tree.BoundAll(1 << 30); err != nil {
				t.Fatal(err)
			}
			want := read()
			if err := os.RemoveAll(filepath.Dir(knob)); err != nil {
				t.Fatal(err)
			}
			if err := tree.MakePod("x", cruntime.Resources{}); err != nil || read() != want || want == absent {
				t.Errorf("after the parent was removed: %s, %v; want %s", read(), err, want)
			}
			if err := os.WriteFile(knob, []byte("4096"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := tree.MakePod("x", cruntime.Resources{}); err != nil || read() != "4096" {
				t.Errorf("another agent's limit: %s, %v", read(), err)
			}
		})
	}
}

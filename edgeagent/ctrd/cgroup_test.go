package ctrd

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

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
			c := detectCgroups(root, "/nowhere")
			if err := c.makePod("x", tt.res); err != nil {
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
	r := &Runtime{cgroups: detectCgroups(root, "/nowhere")}
	if err := r.BoundAll(1 << 30); err != nil {
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
			r := &Runtime{cgroups: detectCgroups(cgroupFiles(t, tt.files), kernel)}
			reason, why := r.NoMemoryLimits()
			if reason != tt.reason || !strings.Contains(why, tt.text) {
				t.Errorf("%s: %s", reason, why)
			}
			if (r.NotReady() == "") != tt.ready {
				t.Errorf("not ready: %q", r.NotReady())
			}
		})
	}
}

// TestLeastScore checks that the score goes as far down as the kernel lets it.
func TestLeastScore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oom_score_adj")
	for before, want := range map[string]int{"0": -999, "500": -999, "-999": -999, "-1000": -1000} {
		if err := os.WriteFile(file, []byte(before+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := leastScore(file); got != want || err != nil {
			t.Errorf("from %s: %d, %v; want %d", before, got, err, want)
		}
	}
	// The kernel's own: where this process may not go down to the least, what it found is the bound.
	got, err := leastScore("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err != nil || strings.TrimSpace(string(b)) != decimal(int64(got)) {
		t.Errorf("found %d, it is %s, %v", got, b, err)
	}
	if got > agentOOMScore {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(decimal(int64(got-1))), 0o644); err == nil {
			t.Errorf("%d is not the least: one less works", got)
		}
	}
}

// TestAppArmor checks that where the kernel has it a container is confined, by the profile that it names if that is loaded.
func TestAppArmor(t *testing.T) {
	r := &Runtime{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	broken := false
	load := func(string) error {
		if broken {
			return errors.New("apparmor_parser failed")
		}
		return nil
	}
	for _, tt := range []struct {
		name      string
		s         cruntime.Security
		supported bool
		confined  bool
		err       string
	}{
		{"no AppArmor", cruntime.Security{}, false, false, ""},
		{"default", cruntime.Security{}, true, true, ""},
		{"default, broken", cruntime.Security{}, true, false, ""},
		{"asked for", cruntime.Security{AppArmorDefault: true}, true, true, ""},
		{"asked for, broken", cruntime.Security{AppArmorDefault: true}, true, false, "cannot be loaded"},
		{"unconfined", cruntime.Security{AppArmorUnconfined: true}, true, false, ""},
		{"privileged", cruntime.Security{Privileged: true, AppArmorProfile: "x"}, true, false, ""},
		{"unknown", cruntime.Security{AppArmorProfile: "no-such-profile"}, true, false, "AppArmor"},
	} {
		broken = strings.HasSuffix(tt.name, "broken")
		opt, err := r.appArmor(tt.s, tt.supported, load)
		if (opt != nil) != tt.confined || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: confined %v, %v", tt.name, opt != nil, err)
		}
	}
	list := []byte("petrel-default (enforce)\n/usr/bin/man (enforce)\nspaced name (complain)\n")
	for name, want := range map[string]bool{"petrel-default": true, "/usr/bin/man": true, "spaced name": true, "petrel": false, "petrel-default (enforce)": false, "": false} {
		if profileLoaded(list, name) != want {
			t.Errorf("%q: loaded %v", name, !want)
		}
	}
}

// TestNoSeccomp checks that on a kernel without seccomp filters those run without who have not asked for the default profile.
func TestNoSeccomp(t *testing.T) {
	for _, tt := range []struct {
		enabled, asked, confined, refused bool
	}{
		{true, true, true, false}, {true, false, true, false}, {false, true, false, true}, {false, false, false, false},
	} {
		spec := &oci.Spec{Linux: &specs.Linux{}, Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
		err := defaultSeccomp(tt.enabled, tt.asked)(t.Context(), nil, nil, spec)
		if (spec.Linux.Seccomp != nil) != tt.confined || errors.Is(err, cruntime.ErrConfig) != tt.refused || err != nil && !tt.refused {
			t.Errorf("%+v: %+v, %v", tt, spec.Linux.Seccomp, err)
		}
	}
}

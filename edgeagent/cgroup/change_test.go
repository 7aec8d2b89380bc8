package cgroup

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// TestRaisePod checks, in both versions of cgroups, that limits of a pod grow and do not shrink, and that none stays none.
func TestRaisePod(t *testing.T) {
	v1 := func(quota, memory string) map[string]string {
		files := maps.Clone(version1)
		maps.Copy(files, map[string]string{"cpu/petrel/podx/cpu.cfs_quota_us": quota, "cpu/petrel/podx/cpu.cfs_period_us": "100000",
			"memory/petrel/podx/memory.limit_in_bytes": memory, "memory/petrel/podx/memory.usage_in_bytes": "4096"})
		return files
	}
	v2 := func(quota, memory string) map[string]string {
		files := maps.Clone(version2)
		maps.Copy(files, map[string]string{"petrel/podx/cpu.max": quota + " 100000", "petrel/podx/memory.max": memory, "petrel/podx/memory.current": "4096"})
		return files
	}
	half := cruntime.Resources{CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000, MemoryLimit: 64 << 20}
	const none = "9223372036854771712" // version 1's
	for name, test := range map[string]struct {
		files         map[string]string
		res           cruntime.Resources
		quota, memory string
	}{
		"version 1, larger":        {v1("20000", "1048576"), half, "50000", "67108864"},
		"version 1, smaller":       {v1("80000", "134217728"), half, "80000", "134217728"},
		"version 1, no limits":     {v1("-1", none), half, "-1", "-1"},
		"version 1, none from now": {v1("80000", "134217728"), cruntime.Resources{CPUShares: 2}, "-1", "-1"},
		"version 2, larger":        {v2("20000", "1048576"), half, "50000 100000", "67108864"},
		"version 2, smaller":       {v2("80000", "134217728"), half, "80000 100000", "134217728"},
		"version 2, mixed":         {v2("80000", "1048576"), half, "80000 100000", "67108864"},
		"version 2, no limits":     {v2("max", "max"), half, "max 100000", "max"},
	} {
		root := cgroupFiles(t, test.files)
		c := Detect(root, "/nowhere")
		if err := c.RaisePod("x", test.res); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		quota, memory := "cpu/petrel/podx/cpu.cfs_quota_us", "memory/petrel/podx/memory.limit_in_bytes"
		if c.Unified {
			quota, memory = "petrel/podx/cpu.max", "petrel/podx/memory.max"
		}
		for file, want := range map[string]string{quota: test.quota, memory: test.memory} {
			if b, err := os.ReadFile(filepath.Join(root, file)); err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s: %s is %q, %v; want %s", name, file, b, err, want)
			}
		}
	}
	if use, limit, err := Detect(cgroupFiles(t, v1("1", none)), "/nowhere").MemoryUse("/petrel/podx"); use != 4096 || limit != 0 || err != nil {
		t.Errorf("memory: %d of %d, %v", use, limit, err)
	}
	if _, _, err := Detect(cgroupFiles(t, version2), "/nowhere").MemoryUse("/petrel/podx"); err == nil {
		t.Error("a cgroup that is not there uses memory")
	}
}

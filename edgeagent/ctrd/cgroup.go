package ctrd

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"petrel.dev/petrel/edgeagent/podrun"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups is what the kernel offers for bounding processes.
type cgroups struct {
	unified           bool // version 2
	cpu, memory, pids bool
}

// MemoryCgroupFix tells what to do on a board whose kernel leaves the memory controller off.
const MemoryCgroupFix = "add \"cgroup_enable=memory cgroup_memory=1\" to the kernel command line (Raspberry Pi OS: /boot/firmware/cmdline.txt) and reboot"

func detectCgroups() cgroups {
	if b, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		c := cgroups{unified: true}
		for _, name := range strings.Fields(string(b)) {
			c.cpu, c.memory, c.pids = c.cpu || name == "cpu", c.memory || name == "memory", c.pids || name == "pids"
		}
		return c
	}
	has := func(name, file string) bool {
		_, err := os.Stat(filepath.Join(cgroupRoot, name, file))
		return err == nil
	}
	return cgroups{cpu: has("cpu", "cpu.shares"), memory: has("memory", "memory.limit_in_bytes"), pids: has("pids", "cgroup.procs")}
}

// MemoryLimits reports whether memory limits can be kept on this machine; if not, MemoryCgroupFix tells the way out.
func (r *Runtime) MemoryLimits() bool { return r.cgroups.memory }

// podCgroup is the parent of a pod's containers' cgroups, from the root of every hierarchy.
func podCgroup(podUID string) string { return "/petrel/pod" + podUID }

// makePod makes the parent cgroup of a pod and sets its limits.
func (c cgroups) makePod(podUID string, res podrun.Resources) error {
	name := podCgroup(podUID)
	if c.unified {
		return c.makePodUnified(name, res)
	}
	set := func(controller, file string, value int64) error {
		return writeKnob(filepath.Join(cgroupRoot, controller, name, file), value)
	}
	if c.cpu {
		if err := os.MkdirAll(filepath.Join(cgroupRoot, "cpu", name), 0o755); err != nil {
			return err
		}
		if err := set("cpu", "cpu.shares", int64(max(res.CPUShares, 2))); err != nil {
			return err
		}
		if res.CPUQuota > 0 {
			if err := errors.Join(set("cpu", "cpu.cfs_period_us", int64(res.CPUPeriod)), set("cpu", "cpu.cfs_quota_us", res.CPUQuota)); err != nil {
				return err
			}
		}
	}
	if c.memory {
		if err := os.MkdirAll(filepath.Join(cgroupRoot, "memory", name), 0o755); err != nil {
			return err
		}
		_ = set("memory", "memory.use_hierarchy", 1) // always so on newer kernels
		if res.MemoryLimit > 0 {
			return set("memory", "memory.limit_in_bytes", res.MemoryLimit)
		}
	}
	return nil
}

func (c cgroups) makePodUnified(name string, res podrun.Resources) error {
	dir := filepath.Join(cgroupRoot, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var on []string
	for ctl, ok := range map[string]bool{"cpu": c.cpu, "memory": c.memory, "pids": c.pids} {
		if ok {
			on = append(on, "+"+ctl)
		}
	}
	for _, d := range []string{cgroupRoot, filepath.Dir(dir), dir} {
		if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(strings.Join(on, " ")), 0o644); err != nil {
			return fmt.Errorf("cgroup %s: enabling %v: %w", d, on, err)
		}
	}
	if c.cpu {
		if err := writeKnob(filepath.Join(dir, "cpu.weight"), weightOf(res.CPUShares)); err != nil {
			return err
		}
		if res.CPUQuota > 0 {
			if err := os.WriteFile(filepath.Join(dir, "cpu.max"), fmt.Appendf(nil, "%d %d", res.CPUQuota, res.CPUPeriod), 0o644); err != nil {
				return err
			}
		}
	}
	if c.memory && res.MemoryLimit > 0 {
		return writeKnob(filepath.Join(dir, "memory.max"), res.MemoryLimit)
	}
	return nil
}

// weightOf maps version 1's cpu.shares (2..262144) on version 2's cpu.weight (1..10000), as runc does.
func weightOf(shares uint64) int64 {
	shares = min(max(shares, 2), 262144)
	return int64(1 + ((shares-2)*9999)/262142)
}

func writeKnob(path string, value int64) error {
	if err := os.WriteFile(path, []byte(strconv.FormatInt(value, 10)), 0o644); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// removePod deletes a pod's cgroups in every hierarchy; nothing may run in them any more.
func (c cgroups) removePod(podUID string) error {
	var errs []error
	for _, d := range c.podDirs(podUID) {
		errs = append(errs, removeTree(d))
	}
	return errors.Join(errs...)
}

// podDirs are a pod's cgroups, one in each hierarchy.
func (c cgroups) podDirs(podUID string) []string {
	dirs := []string{filepath.Join(cgroupRoot, podCgroup(podUID))}
	if !c.unified {
		hierarchies, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", podCgroup(podUID)))
		dirs = append(dirs, hierarchies...)
	}
	return dirs
}

// processes are those in a pod's cgroups.
func (c cgroups) processes(podUID string) []int {
	seen := map[int]bool{}
	for _, dir := range c.podDirs(podUID) {
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.Name() != "cgroup.procs" {
				return nil // what cannot be read now cannot be removed either, which tells of it
			}
			b, _ := os.ReadFile(path)
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil {
					seen[pid] = true
				}
			}
			return nil
		})
	}
	return slices.Sorted(maps.Keys(seen))
}

// removeTree removes a cgroup and those in it: only directories can be removed there.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// oomKilled tells whether the kernel has killed something in a container for want of memory. The cgroup still exists
// while the container's task does.
func (c cgroups) oomKilled(path string) bool {
	file := filepath.Join(cgroupRoot, "memory", path, "memory.oom_control")
	if c.unified {
		file = filepath.Join(cgroupRoot, path, "memory.events")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
			return true
		}
	}
	return false
}

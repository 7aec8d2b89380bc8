// Package cgroup bounds what processes may use: it makes the cgroups of pods in every hierarchy that the kernel has, of version 1
// or 2, sets and changes their limits, and removes them. Those of containers are made by the runtime below their pod's.
//
//	Root ─► petrel (all pods) ─► pod<uid> ─► <container ID>
//
// What processes have used is cgroupstat's.
package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Root is where cgroups are mounted on every system that is known.
const Root = "/sys/fs/cgroup"

// Tree is what the kernel offers for bounding processes, as it is mounted here.
type Tree struct {
	root              string // where it is mounted
	mounted           bool
	Unified           bool // version 2
	CPU, Memory, Pids bool // the controllers that can be had
	// kernelMemory reports whether the kernel has the memory controller, even if it cannot be had at root.
	kernelMemory bool
	all          *atomic.Int64 // bytes of memory for all pods together; 0: they have not been bounded
}

// memoryFix says what to do on a board whose kernel leaves the memory controller off.
const memoryFix = "add \"cgroup_enable=memory cgroup_memory=1\" to the kernel command line (Raspberry Pi OS: /boot/firmware/cmdline.txt) and reboot"

// Detect looks at what is mounted at root; kernel is the kernel's own list of controllers, /proc/cgroups.
func Detect(root, kernel string) Tree {
	c := Tree{root: root, kernelMemory: hasController(kernel, "memory"), all: new(atomic.Int64)}
	if b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		c.Unified, c.mounted = true, true
		for _, name := range strings.Fields(string(b)) {
			c.CPU, c.Memory, c.Pids = c.CPU || name == "cpu", c.Memory || name == "memory", c.Pids || name == "pids"
		}
		return c
	}
	has := func(name, file string) bool {
		_, err := os.Stat(filepath.Join(root, name, file))
		return err == nil
	}
	c.CPU, c.Memory, c.Pids = has("cpu", "cpu.shares"), has("memory", "memory.limit_in_bytes"), has("pids", "cgroup.procs")
	procs, _ := filepath.Glob(filepath.Join(root, "*", "cgroup.procs"))
	c.mounted = len(procs) > 0
	return c
}

// hasController reports whether a list in the form of /proc/cgroups has a controller switched on.
func hasController(list, name string) bool {
	b, err := os.ReadFile(list)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == name {
			return f[3] == "1"
		}
	}
	return false
}

// NoMemory returns why memory limits cannot be kept, as the reason of a condition and as a text with the way out; both
// are empty where they can.
func (c Tree) NoMemory() (reason, why string) {
	switch {
	case c.Memory:
		return "", ""
	case !c.mounted:
		return "CgroupsNotMounted", c.NotMounted()
	case c.kernelMemory && c.Unified:
		return "MemoryCgroupNotHere", "the kernel has its memory cgroup on, but not in the hierarchy at " + c.root +
			": unmount the version 1 hierarchy that holds it, or, in a container, have the controller delegated to it; then restart the agent"
	case c.kernelMemory:
		return "MemoryCgroupNotMounted", "the kernel has its memory cgroup on, but it is not mounted: mkdir -p " + filepath.Join(c.root, "memory") +
			" && mount -t cgroup -o memory cgroup " + filepath.Join(c.root, "memory") + ", then restart the agent"
	}
	return "NoMemoryCgroup", "the kernel has its memory cgroup off: " + memoryFix
}

// NotMounted returns what to do where no cgroups are mounted, so that no container can run; "" where they are.
func (c Tree) NotMounted() string {
	if c.mounted {
		return ""
	}
	return "no cgroups are mounted at " + c.root + ", and containers cannot run without: mount -t cgroup2 cgroup2 " + c.root +
		" (systemd does that; a container needs those of its host), then restart the agent"
}

// allPods is the parent of all pods' cgroups, from the root of every hierarchy.
const allPods = "/petrel"

// Path returns the cgroup of a container, or with id "" of a pod, from the root of every hierarchy.
func Path(podUID, id string) string { return filepath.Join(allPods, "pod"+podUID, id) }

// BoundAll bounds all pods together, so that the agent and the system keep room whatever pods do: to memory bytes, and to
// nine tenths of the process IDs that the kernel has.
func (c Tree) BoundAll(memory int64) error {
	var pids int64
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && (pids == 0 || n < pids) {
			pids = n
		}
	}
	if err := c.bound(allPods, cruntime.Resources{MemoryLimit: memory, PidsLimit: pids / 10 * 9}); err != nil {
		return err
	}
	c.all.Store(memory)
	return nil
}

// MakePod makes the parent cgroup of a pod and sets its limits. All pods together are bounded again where they are not any more: another
// agent of the machine that leaves removes their parent while it is empty. With a pod in it, it stays.
func (c Tree) MakePod(podUID string, res cruntime.Resources) error {
	res.CPUShares = max(res.CPUShares, 2)
	if err := c.bound(Path(podUID, ""), res); err != nil {
		return err
	}
	if memory := c.all.Load(); memory > 0 && c.unbounded(allPods) {
		return c.BoundAll(memory)
	}
	return nil
}

// unbounded reports whether a cgroup has no limit of memory, or of processes where there is no memory controller.
func (c Tree) unbounded(name string) bool {
	if !c.Memory && !c.Pids {
		return false
	}
	controller, knob := "memory", "memory.limit_in_bytes"
	switch {
	case !c.Memory:
		controller, knob = "pids", "pids.max"
	case c.Unified:
		knob = "memory.max"
	}
	if c.Unified {
		controller = ""
	}
	f, err := fields(filepath.Join(c.root, controller, name, knob))
	if err != nil {
		return true
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	return err != nil || n < 0 || n >= unlimited // "max", -1
}

// bound makes a cgroup in every hierarchy that bounds something, and sets its limits; what is zero is unbounded, but CPU
// shares of zero are left as they are.
func (c Tree) bound(name string, res cruntime.Resources) error {
	if c.Unified {
		return c.boundUnified(name, res)
	}
	set := func(controller, file, value string) error {
		dir := filepath.Join(c.root, controller, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		return writeKnob(filepath.Join(dir, file), value)
	}
	var errs []error
	if c.CPU && res.CPUShares > 0 {
		errs = append(errs, set("cpu", "cpu.shares", decimal(res.CPUShares)))
		if res.CPUQuota > 0 {
			errs = append(errs, set("cpu", "cpu.cfs_period_us", decimal(res.CPUPeriod)))
		}
		if res.CPUQuota > 0 || exists(filepath.Join(c.root, "cpu", name, "cpu.cfs_quota_us")) {
			errs = append(errs, set("cpu", "cpu.cfs_quota_us", limit(res.CPUQuota, "-1")))
		}
	}
	if c.Memory {
		_ = set("memory", "memory.use_hierarchy", "1") // always so on newer kernels
		errs = append(errs, set("memory", "memory.limit_in_bytes", limit(res.MemoryLimit, "-1")))
	}
	if c.Pids {
		errs = append(errs, set("pids", "pids.max", limit(res.PidsLimit, "max")))
	}
	return errors.Join(errs...)
}

func (c Tree) boundUnified(name string, res cruntime.Resources) error {
	dir := filepath.Join(c.root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	var on []string
	for _, ctl := range []struct {
		name string
		has  bool
	}{{"cpu", c.CPU}, {"memory", c.Memory}, {"pids", c.Pids}} {
		if ctl.has {
			on = append(on, "+"+ctl.name)
		}
	}
	for d := c.root; ; d = filepath.Join(d, next(d, dir)) {
		if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(strings.Join(on, " ")), 0o644); err != nil {
			return fmt.Errorf("cgroup %s: enabling %v: %w", d, on, err)
		}
		if d == dir {
			break
		}
	}
	var errs []error
	set := func(file, value string) { errs = append(errs, writeKnob(filepath.Join(dir, file), value)) }
	if c.CPU && res.CPUShares > 0 {
		set("cpu.weight", decimal(weightOf(res.CPUShares)))
		if res.CPUQuota > 0 || exists(filepath.Join(dir, "cpu.max")) {
			set("cpu.max", limit(res.CPUQuota, "max")+" "+decimal(max(res.CPUPeriod, 100_000)))
		}
	}
	if c.Memory {
		set("memory.max", limit(res.MemoryLimit, "max"))
	}
	if c.Pids {
		set("pids.max", limit(res.PidsLimit, "max"))
	}
	return errors.Join(errs...)
}

// next returns the first path element on the way from dir down to target.
func next(dir, target string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(target, dir+"/"), "/")
	return first
}

// exists reports whether the kernel has a knob. Kernels without CFS bandwidth, those of older boards among them, have none
// for CPU quotas; where there is no limit to set or to lift, none is needed.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func decimal[N int64 | uint64](n N) string { return fmt.Sprint(n) }

// limit writes a limit of zero as the kernel's word for none.
func limit(n int64, none string) string {
	if n <= 0 {
		return none
	}
	return decimal(n)
}

// weightOf maps version 1's cpu.shares (2..262144) on version 2's cpu.weight (1..10000), as runc does.
func weightOf(shares uint64) int64 {
	shares = min(max(shares, 2), 262144)
	return int64(1 + ((shares-2)*9999)/262142)
}

func writeKnob(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// RemovePod deletes a pod's cgroups in every hierarchy; nothing may run in them any more.
func (c Tree) RemovePod(podUID string) error {
	var errs []error
	for _, d := range c.podDirs(podUID) {
		errs = append(errs, removeTree(d))
	}
	return errors.Join(errs...)
}

// RemoveEmpty deletes the parent of all pods' cgroups in every hierarchy where no pod has one in it: another agent of the machine
// may have pods there.
func (c Tree) RemoveEmpty() error {
	var errs []error
	for _, d := range c.dirs(allPods) {
		if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// podDirs are a pod's cgroups, one in each hierarchy.
func (c Tree) podDirs(podUID string) []string { return c.dirs(Path(podUID, "")) }

// dirs are the directories of a cgroup, one in each hierarchy.
func (c Tree) dirs(name string) []string {
	dirs := []string{filepath.Join(c.root, name)}
	if !c.Unified {
		hierarchies, _ := filepath.Glob(filepath.Join(c.root, "*", name))
		dirs = append(dirs, hierarchies...)
	}
	return dirs
}

// Processes returns those in a pod's cgroups.
func (c Tree) Processes(podUID string) []int {
	seen := map[int]bool{}
	for _, dir := range c.podDirs(podUID) {
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.Name() != "cgroup.procs" {
				return nil // what cannot be read now cannot be removed either, and the removal fails
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

// OOMKilled reports whether the kernel has killed something in a container for want of memory. The cgroup still exists
// while the container's task does.
func (c Tree) OOMKilled(path string) bool {
	file := filepath.Join(c.root, "memory", path, "memory.oom_control")
	if c.Unified {
		file = filepath.Join(c.root, path, "memory.events")
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

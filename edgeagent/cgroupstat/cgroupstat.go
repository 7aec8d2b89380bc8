// Package cgroupstat reads what cgroups, of version 1 or 2, and the whole machine have used of CPU and memory. It reads the kernel's
// own files only, so it neither waits for a container nor is misled by one.
package cgroupstat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what has been used until At. Sizes are bytes.
type Usage struct {
	At time.Time
	// CPU is the time on all processors since the cgroup was made, or the machine was started; HasCPU is false where the kernel does
	// not count it.
	CPU    time.Duration
	HasCPU bool
	// Memory is all that is charged; WorkingSet leaves out file pages that can be given back at once, as kubelet counts. HasMemory is
	// false where the kernel does not count them.
	Memory, WorkingSet, RSS uint64
	HasMemory               bool
	PageFaults, MajorFaults uint64
	// Available is what is left of the machine's memory; 0 for a cgroup.
	Available uint64
}

// Reader reads below Root, "" is "/"; tests have others.
type Reader struct{ Root string }

const cgroupRoot = "sys/fs/cgroup"

// Of returns the usage of a cgroup, named from the root of its hierarchies: os.ErrNotExist when it is gone.
func (r Reader) Of(cgroup string) (Usage, error) {
	u := Usage{At: time.Now()}
	base := filepath.Join("/", r.Root, cgroupRoot)
	if _, err := os.Stat(filepath.Join(base, "cgroup.controllers")); err == nil {
		err = r.unified(&u, filepath.Join(base, cgroup))
		return u, err
	}
	err := r.separate(&u, base, cgroup)
	return u, err
}

// unified reads a cgroup of version 2.
func (r Reader) unified(u *Usage, dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if cpu, err := table(filepath.Join(dir, "cpu.stat")); err == nil {
		if us, ok := cpu["usage_usec"]; ok {
			u.CPU, u.HasCPU = time.Duration(us)*time.Microsecond, true
		}
	}
	current, err := number(filepath.Join(dir, "memory.current"))
	if err != nil {
		return nil // no memory controller
	}
	stat, err := table(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	u.memory(current, stat["inactive_file"], stat["anon"])
	u.PageFaults, u.MajorFaults = stat["pgfault"], stat["pgmajfault"]
	return nil
}

// separate reads a cgroup of version 1, which has one directory in each controller's hierarchy.
func (r Reader) separate(u *Usage, base, cgroup string) error {
	found := false
	for _, controller := range []string{"cpuacct", "cpu,cpuacct", "cpu"} {
		if ns, err := number(filepath.Join(base, controller, cgroup, "cpuacct.usage")); err == nil {
			u.CPU, u.HasCPU, found = time.Duration(ns), true, true
			break
		}
	}
	dir := filepath.Join(base, "memory", cgroup)
	current, err := number(filepath.Join(dir, "memory.usage_in_bytes"))
	switch {
	case err != nil && !found:
		return fmt.Errorf("cgroup %s: %w", cgroup, os.ErrNotExist)
	case err != nil:
		return nil
	}
	stat, err := table(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	u.memory(current, stat["total_inactive_file"], stat["total_rss"])
	u.PageFaults, u.MajorFaults = stat["total_pgfault"], stat["total_pgmajfault"]
	return nil
}

func (u *Usage) memory(used, inactiveFile, rss uint64) {
	u.HasMemory, u.Memory, u.RSS = true, used, rss
	u.WorkingSet = used - min(used, inactiveFile)
}

// clockTick is the unit of /proc/stat, which is the same on all of Linux.
const clockTick = 10 * time.Millisecond

// Machine returns the usage of the whole machine, and when it was started.
func (r Reader) Machine() (u Usage, started time.Time, err error) {
	u.At = time.Now()
	b, err := os.ReadFile(filepath.Join("/", r.Root, "proc/stat"))
	if err != nil {
		return u, started, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "btime" {
			if s, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				started = time.Unix(s, 0)
			}
		}
		if len(f) < 8 || f[0] != "cpu" {
			continue
		}
		for i, field := range f[1:min(len(f), 9)] { // user nice system idle iowait irq softirq steal
			if ticks, err := strconv.ParseUint(field, 10, 64); err == nil && i != 3 && i != 4 {
				u.CPU, u.HasCPU = u.CPU+time.Duration(ticks)*clockTick, true
			}
		}
	}
	info, err := table(filepath.Join("/", r.Root, "proc/meminfo"))
	if err != nil {
		return u, started, err
	}
	kib := func(name string) uint64 { return info[name+":"] << 10 }
	if kib("MemTotal") == 0 {
		return u, started, errors.New("/proc/meminfo has no MemTotal")
	}
	u.memory(kib("MemTotal")-min(kib("MemFree"), kib("MemTotal")), kib("Inactive(file)"), kib("AnonPages"))
	u.Available = kib("MemTotal") - min(u.WorkingSet, kib("MemTotal"))
	if vm, err := table(filepath.Join("/", r.Root, "proc/vmstat")); err == nil {
		u.PageFaults, u.MajorFaults = vm["pgfault"], vm["pgmajfault"]
	}
	return u, started, nil
}

// table reads a file of lines "name number", with more behind or not.
func table(path string) (map[string]uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
			out[f[0]] = n
		}
	}
	return out, nil
}

func number(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

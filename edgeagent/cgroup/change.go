package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// unlimited is where version 1 counts as having no limit of memory: the kernel shows the largest number of whole pages.
const unlimited = 1 << 62

// RaisePod sets a pod's limits where they are larger than those that it has, and leaves the others: on version 1 the kernel lets no
// cgroup have less CPU than one below it, so while containers change their pod has the larger of both. Shares are no limit, and are
// set.
func (c Tree) RaisePod(podUID string, res cruntime.Resources) error {
	now, err := c.limits(Path(podUID, ""))
	if err != nil {
		return err
	}
	if now.CPUQuota == 0 || res.CPUQuota > 0 && now.CPUQuota > res.CPUQuota {
		res.CPUQuota, res.CPUPeriod = now.CPUQuota, now.CPUPeriod
	}
	if now.MemoryLimit == 0 || res.MemoryLimit > 0 && now.MemoryLimit > res.MemoryLimit {
		res.MemoryLimit = now.MemoryLimit
	}
	return c.MakePod(podUID, res)
}

// limits reads the limits of CPU and memory that a cgroup has; none is zero.
func (c Tree) limits(name string) (cruntime.Resources, error) {
	var res cruntime.Resources
	quota, period := filepath.Join(c.root, "cpu", name, "cpu.cfs_quota_us"), filepath.Join(c.root, "cpu", name, "cpu.cfs_period_us")
	if c.Unified {
		quota, period = filepath.Join(c.root, name, "cpu.max"), ""
	}
	if c.CPU && exists(quota) {
		f, err := fields(quota)
		if err == nil && period != "" {
			var p []string
			p, err = fields(period)
			f = append(f, p...)
		}
		if err != nil {
			return res, err
		}
		if n, err := strconv.ParseInt(f[0], 10, 64); err == nil && n > 0 && len(f) > 1 { // "max" and -1 are no limit
			res.CPUQuota = n
			if res.CPUPeriod, err = strconv.ParseUint(f[1], 10, 64); err != nil {
				return res, fmt.Errorf("cgroup %s: period %q", name, f[1])
			}
		}
	}
	var err error
	_, res.MemoryLimit, err = c.MemoryUse(name)
	return res, err
}

// MemoryUse returns how many bytes a cgroup uses, and how many it may use; 0: as many as it likes. Without a memory controller both
// are 0.
func (c Tree) MemoryUse(name string) (use, limit int64, err error) {
	if !c.Memory {
		return 0, 0, nil
	}
	used, most := filepath.Join(c.root, "memory", name, "memory.usage_in_bytes"), filepath.Join(c.root, "memory", name, "memory.limit_in_bytes")
	if c.Unified {
		used, most = filepath.Join(c.root, name, "memory.current"), filepath.Join(c.root, name, "memory.max")
	}
	for path, to := range map[string]*int64{used: &use, most: &limit} {
		f, err := fields(path)
		if err != nil {
			return 0, 0, err
		}
		if n, err := strconv.ParseInt(f[0], 10, 64); err == nil && n < unlimited { // "max" is no number
			*to = n
		}
	}
	return use, limit, nil
}

// fields reads a knob; there is at least one field.
func fields(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return nil, fmt.Errorf("cgroup: %s is empty", path)
	}
	return f, nil
}

package ctrd

import (
	"context"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// NoMemoryLimits returns why memory limits cannot be kept on this machine: the reason for a condition, and what to do.
// Both are empty where they can.
func (r *Runtime) NoMemoryLimits() (reason, why string) { return r.cgroups.NoMemory() }

// NotReady returns why no container can run on this machine, or "".
func (r *Runtime) NotReady() string { return r.cgroups.NotMounted() }

// BoundAll bounds all pods together to memory bytes, and to a share of the kernel's process IDs.
func (r *Runtime) BoundAll(memory int64) error { return r.cgroups.BoundAll(memory) }

// resources bounds the container with what the kernel offers.
func (r *Runtime) resources(res cruntime.Resources) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		if spec.Linux.Resources == nil {
			spec.Linux.Resources = &specs.LinuxResources{}
		}
		out := spec.Linux.Resources
		if r.cgroups.CPU {
			shares := max(res.CPUShares, 2)
			out.CPU = &specs.LinuxCPU{Shares: &shares}
			if res.CPUQuota > 0 {
				out.CPU.Quota, out.CPU.Period = &res.CPUQuota, &res.CPUPeriod
			}
		}
		if r.cgroups.Memory && res.MemoryLimit > 0 {
			out.Memory = &specs.LinuxMemory{Limit: &res.MemoryLimit}
			if r.cgroups.Unified { // a container without some of its processes is no better than a dead one, which is started again
				out.Unified = map[string]string{"memory.oom.group": "1"}
			}
		}
		score := max(res.OOMScoreAdj, r.leastOOMScore)
		spec.Process.OOMScoreAdj = &score
		return nil
	}
}

package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime"
)

// NoMemoryLimits returns why memory limits cannot be kept on this machine: the reason for a condition, and what to do.
// Both are empty where they can.
func (r *Runtime) NoMemoryLimits() (reason, why string) { return r.cgroups.NoMemory() }

// NotReady returns why no container can run on this machine, or "".
func (r *Runtime) NotReady() string { return r.cgroups.NotMounted() }

// BoundAll bounds all pods together to memory bytes, and to a share of the kernel's process IDs.
func (r *Runtime) BoundAll(memory int64) error { return r.cgroups.BoundAll(memory) }

// bound bounds a pod as a whole; raise: limits that it has are only made larger.
func (r *Runtime) bound(podUID string, res cruntime.Resources, raise bool) error {
	if raise {
		return r.cgroups.RaisePod(podUID, res)
	}
	return r.cgroups.MakePod(podUID, res)
}

// BoundPod implements podrun.Runtime.
func (r *Runtime) BoundPod(_ context.Context, podUID string, res cruntime.Resources, raise bool) error {
	if _, err := os.Stat(r.sandboxDir(podUID)); err != nil {
		return fmt.Errorf("%w: sandbox of pod %s", cruntime.ErrNotFound, podUID)
	}
	if err := r.bound(podUID, res, raise); err != nil {
		return fmt.Errorf("sandbox of pod %s: %w", podUID, err)
	}
	return nil
}

// MemoryUse implements podrun.Runtime.
func (r *Runtime) MemoryUse(_ context.Context, podUID, id string) (use, limit int64, err error) {
	use, limit, err = r.cgroups.MemoryUse(cgroup.Path(podUID, id))
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, fmt.Errorf("%w: %v", cruntime.ErrNotFound, err)
	}
	return use, limit, err
}

// Update implements podrun.Runtime. The label comes last: where this is cut off, the next call does it again.
func (r *Runtime) Update(ctx context.Context, id string, res cruntime.Resources, share string) error {
	if reason, why := r.NoMemoryLimits(); res.MemoryLimit > 0 && reason != "" {
		return fmt.Errorf("%w: the memory limit cannot be kept: %s", cruntime.ErrConfig, why)
	}
	ctx = r.ns(ctx)
	container, task, err := r.started(ctx, id)
	if err != nil {
		return err
	}
	if st, err := task.Status(ctx); err != nil || st.Status != client.Running {
		return fmt.Errorf("%w: container %s does not run (%v)", cruntime.ErrNotFound, id, err)
	}
	var out specs.LinuxResources
	r.limit(&out, res)
	if err := task.Update(ctx, client.WithResources(&out)); err != nil {
		return fmt.Errorf("resources of container %s: %w", id, notFound(err))
	}
	_, err = container.SetLabels(ctx, map[string]string{labelShare: share})
	return notFound(err)
}

// limit writes CPU and memory into out, as far as the kernel can bound them.
func (r *Runtime) limit(out *specs.LinuxResources, res cruntime.Resources) {
	if r.cgroups.CPU {
		shares := max(res.CPUShares, 2)
		out.CPU = &specs.LinuxCPU{Shares: &shares}
		if res.CPUQuota > 0 {
			out.CPU.Quota, out.CPU.Period = &res.CPUQuota, &res.CPUPeriod
		}
	}
	if r.cgroups.Memory && res.MemoryLimit > 0 {
		out.Memory = &specs.LinuxMemory{Limit: &res.MemoryLimit}
	}
}

// resources bounds a new container with what the kernel offers.
func (r *Runtime) resources(res cruntime.Resources) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		if spec.Linux.Resources == nil {
			spec.Linux.Resources = &specs.LinuxResources{}
		}
		out := spec.Linux.Resources
		r.limit(out, res)
		if out.Memory != nil && r.cgroups.Unified { // a container without some of its processes is no better than a dead one, which is started again
			out.Unified = map[string]string{"memory.oom.group": "1"}
		}
		score := max(res.OOMScoreAdj, r.leastOOMScore)
		spec.Process.OOMScoreAdj = &score
		return nil
	}
}

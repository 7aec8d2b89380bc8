package ctrd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	apparmorprofile "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/oci"
	kernelseccomp "github.com/containerd/containerd/v2/pkg/seccomp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/safefile"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// specOpts says in the OCI runtime's terms how a container runs.
func (r *Runtime) specOpts(ctx context.Context, id string, s cruntime.ContainerSpec, config ocispec.ImageConfig) ([]oci.SpecOpts, error) {
	args, err := arguments(s, config)
	if err != nil {
		return nil, err
	}
	cwd := s.WorkingDir
	if cwd == "" {
		cwd = config.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	processes := ""
	if s.SharePID {
		pid, err := r.podInit(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("process namespace of the pod: %w", err)
		}
		processes = fmt.Sprintf("/proc/%d/ns/pid", pid)
	} else if s.TargetID != "" {
		_, target, err := r.started(ctx, s.TargetID)
		if err != nil {
			return nil, fmt.Errorf("process namespace of the target container: %w", err)
		}
		processes = fmt.Sprintf("/proc/%d/ns/pid", target.Pid())
	}
	opts := []oci.SpecOpts{
		oci.WithDefaultSpec(),
		oci.WithDefaultUnixDevices,
		oci.WithoutRunMount,
		oci.WithProcessArgs(args...),
		oci.WithProcessCwd(cwd),
		setEnv(environment(s, config)),
		oci.WithCgroup(cgroup.Path(s.PodUID, id)),
		oci.WithAnnotations(map[string]string{shimGroup: s.PodUID}),
		r.namespaces(s, processes),
		r.resources(s.Resources),
		r.mounts(s),
	}
	if s.TTY {
		opts = append(opts, oci.WithTTY)
	}
	user, err := r.user(s, config)
	if err != nil {
		return nil, err
	}
	opts = append(opts, user...)
	confine, err := r.appArmor(s.Security, apparmor.HostSupports(), apparmorprofile.LoadDefaultProfile)
	if err != nil {
		return nil, err
	}
	if confine != nil {
		opts = append(opts, confine)
	}
	return append(opts, security(s.Security)...), nil
}

// arguments joins the pod's command and arguments with the image's, as the table in the Kubernetes documentation has it.
func arguments(s cruntime.ContainerSpec, config ocispec.ImageConfig) ([]string, error) {
	command, args := s.Command, s.Args
	if len(command) == 0 {
		command = config.Entrypoint
		if len(args) == 0 {
			args = config.Cmd
		}
	}
	all := append(slices.Clone(command), args...)
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: container %s has no command, and neither has its image %s", cruntime.ErrConfig, s.Name, s.Image)
	}
	return all, nil
}

// environment puts the pod's variables over the image's.
func environment(s cruntime.ContainerSpec, config ocispec.ImageConfig) []string {
	set := map[string]bool{}
	for _, kv := range s.Env {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	var out []string
	path := set["PATH"]
	for _, kv := range config.Env {
		k, _, _ := strings.Cut(kv, "=")
		if !set[k] {
			out = append(out, kv)
			path = path || k == "PATH"
		}
	}
	if !path {
		out = append(out, defaultPath)
	}
	if !set["HOSTNAME"] && !s.HostNet {
		out = append(out, "HOSTNAME="+cmp.Or(s.Hostname, s.Pod))
	}
	if s.TTY && !set["TERM"] {
		out = append(out, "TERM=xterm")
	}
	return append(out, s.Env...)
}

func setEnv(env []string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Env = env
		return nil
	}
}

// namespaces has the container join its pod's namespaces, or stay in the node's.
func (r *Runtime) namespaces(s cruntime.ContainerSpec, processes string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		dir := r.sandboxDir(s.PodUID)
		list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		add := func(t specs.LinuxNamespaceType, path string) {
			list = append(list, specs.LinuxNamespace{Type: t, Path: path})
		}
		if !s.HostNet {
			if s.NetnsPath != "" {
				add(specs.NetworkNamespace, s.NetnsPath)
			}
			add(specs.UTSNamespace, filepath.Join(dir, "uts"))
		}
		if !s.HostIPC {
			add(specs.IPCNamespace, filepath.Join(dir, "ipc"))
		}
		if !s.HostPID {
			add(specs.PIDNamespace, processes)
		}
		if r.cgroups.Unified && !s.Security.Privileged {
			add(specs.CgroupNamespace, "")
		}
		spec.Linux.Namespaces = list
		spec.Hostname = ""
		if len(s.Security.Sysctls) > 0 {
			spec.Linux.Sysctl = s.Security.Sysctls
		}
		return nil
	}
}

// mounts adds the pod's mounts to the usual ones; a mount of the pod takes the place of a usual one.
func (r *Runtime) mounts(s cruntime.ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		all := slices.Clone(s.Mounts)
		if !s.HostIPC {
			all = append([]cruntime.Mount{{Source: filepath.Join(r.sandboxDir(s.PodUID), "shm"), Target: "/dev/shm"}}, all...)
		} else {
			all = append([]cruntime.Mount{{Source: "/dev/shm", Target: "/dev/shm"}}, all...)
		}
		mine := map[string]int{}
		for i, m := range all {
			mine[filepath.Clean(m.Target)] = i
		}
		// Runtimes of languages size themselves by the limits that they find here. Never the node's own /sys by a bind
		// mount: read-only would be its top alone, and the node's cgroups below it writable.
		usual := append(slices.Clone(spec.Mounts), specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}})
		var out []specs.Mount
		for _, m := range usual {
			if _, ok := mine[filepath.Clean(m.Destination)]; ok {
				continue
			}
			if s.Security.Privileged && (m.Destination == "/sys" || m.Destination == "/sys/fs/cgroup") {
				m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
			}
			out = append(out, m)
		}
		for i, m := range all {
			if mine[filepath.Clean(m.Target)] != i {
				continue
			}
			o := []string{"rbind", "rprivate", "rw"}
			if m.Propagation != "" {
				o[1] = m.Propagation
				if m.Propagation == "rshared" {
					spec.Linux.RootfsPropagation = "rshared"
				} else if spec.Linux.RootfsPropagation == "" {
					spec.Linux.RootfsPropagation = "rslave"
				}
			}
			if m.ReadOnly {
				o[2] = "ro"
			}
			if m.Recursive {
				o = append(o, "rro")
			}
			out = append(out, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: o})
		}
		// An outer mount must come before those inside it; equal ones keep their order.
		depth := func(m specs.Mount) int { return strings.Count(filepath.Clean(m.Destination), "/") }
		slices.SortStableFunc(out, func(a, b specs.Mount) int { return depth(a) - depth(b) })
		spec.Mounts = out
		return nil
	}
}

// security sets what the container's processes may do.
func security(s cruntime.Security) []oci.SpecOpts {
	var opts []oci.SpecOpts
	if s.ReadOnlyRoot {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	if s.Privileged {
		return append(opts, oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices, oci.WithNewPrivileges)
	}
	if s.UnmaskedProc {
		opts = append(opts, oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil))
	}
	if slices.Contains(s.AddCaps, "ALL") {
		opts = append(opts, oci.WithAllCurrentCapabilities) // the host may lack some, which then cannot be given
	}
	if slices.Contains(s.DropCaps, "ALL") {
		opts = append(opts, oci.WithCapabilities(nil))
	}
	if add := capabilities(s.AddCaps); len(add) > 0 {
		opts = append(opts, oci.WithAddedCapabilities(add))
	}
	if drop := capabilities(s.DropCaps); len(drop) > 0 {
		opts = append(opts, oci.WithDroppedCapabilities(drop))
	}
	if s.NoNewPrivileges {
		opts = append(opts, oci.WithNoNewPrivileges)
	} else {
		opts = append(opts, oci.WithNewPrivileges)
	}
	switch {
	case s.SeccompProfile != "":
		opts = append(opts, seccompFile(s.SeccompProfile))
	case !s.SeccompUnconfined:
		opts = append(opts, defaultSeccomp(kernelseccomp.IsEnabled(), s.SeccompDefault))
	}
	return opts
}

// defaultSeccomp confines a container by the default profile where the kernel has seccomp. Where it has not, one that asks
// for the profile does not start, and others run without, as upstream has it.
func defaultSeccomp(enabled, asked bool) oci.SpecOpts {
	switch {
	case enabled:
		return seccomp.WithDefaultProfile()
	case asked:
		return func(context.Context, oci.Client, *containers.Container, *oci.Spec) error {
			return fmt.Errorf("%w: seccompProfile RuntimeDefault: the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)", cruntime.ErrConfig)
		}
	}
	return func(context.Context, oci.Client, *containers.Container, *oci.Spec) error { return nil }
}

func capabilities(names []string) []string {
	var out []string
	for _, n := range names {
		if n != "ALL" {
			out = append(out, "CAP_"+n)
		}
	}
	return out
}

// maxProfile bounds a seccomp profile. Bytes.
const maxProfile = 1 << 20

// seccompFile uses a profile from the directory where kubelet would look for it.
func seccompFile(name string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		b, err := safefile.ReadInRoot("/var/lib/kubelet/seccomp", name, maxProfile)
		if err != nil {
			return fmt.Errorf("%w: seccomp profile: %v", cruntime.ErrConfig, err)
		}
		spec.Linux.Seccomp = &specs.LinuxSeccomp{}
		if err := json.Unmarshal(b, spec.Linux.Seccomp); err != nil {
			return fmt.Errorf("%w: seccomp profile %s: %v", cruntime.ErrConfig, name, err)
		}
		return nil
	}
}

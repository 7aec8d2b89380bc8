package ctrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	kernelseccomp "github.com/containerd/containerd/v2/pkg/seccomp"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/ctrd/initprogram"
	"petrel.dev/petrel/internal/durable"
)

// The first process of a pod whose containers share a process namespace. It holds the namespace while containers come and
// go, as Kubernetes' pause container does, and buries orphans. It is a container like others to containerd, so it outlives
// the agent, but without an image: its file system is a read-only directory with one small program. It runs as nobody,
// without capabilities, so that a container that looks around by way of /proc/1 finds nothing.

const (
	labelInit   = "petrel.dev/pod-init" // UID of the pod
	initName    = "pod-init"
	initUser    = 65535
	initScore   = -998 // for the out-of-memory killer, as upstream has it
	initRemoval = 30 * time.Second
)

func podInitID(podUID string) string {
	sum := sha256.Sum256([]byte(podUID + "/" + initName))
	return hex.EncodeToString(sum[:])
}

// podInit makes sure of the first process of a pod and returns its process ID. It is made when a container starts: when
// it ends, which takes a hand from outside, the kernel ends all of the pod with it.
func (r *Runtime) podInit(ctx context.Context, s cruntime.ContainerSpec) (uint32, error) {
	id := podInitID(s.PodUID)
	mu, _ := r.inits.LoadOrStore(s.PodUID, &sync.Mutex{})
	mu.(*sync.Mutex).Lock()
	defer mu.(*sync.Mutex).Unlock()
	if old, err := r.client.LoadContainer(ctx, id); err == nil {
		if task, err := old.Task(ctx, nil); err == nil {
			if st, err := task.Status(ctx); err == nil && st.Status == client.Running {
				return task.Pid(), nil
			}
		}
		if err := r.removeInit(ctx, s.PodUID, old); err != nil {
			return 0, err
		}
	} else if !errdefs.IsNotFound(err) {
		return 0, err
	}
	root, err := r.initRoot()
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.pods[id] = s.PodUID // whose events its own are
	r.mu.Unlock()
	container, err := r.client.NewContainer(ctx, id, client.WithContainerLabels(map[string]string{labelInit: s.PodUID}),
		client.WithNewSpec(oci.WithDefaultSpec(), r.initSpec(s, id, root), defaultSeccomp(kernelseccomp.IsEnabled(), false)))
	if err != nil {
		return 0, err
	}
	task, err := r.runTask(ctx, s.PodUID, container, cio.NullIO)
	if err != nil {
		return 0, errors.Join(err, r.removeInit(ctx, s.PodUID, container))
	}
	return task.Pid(), nil
}

// initSpec makes of the usual specification that of a process which needs nothing.
func (r *Runtime) initSpec(s cruntime.ContainerSpec, id, root string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		score := max(initScore, r.leastOOMScore)
		spec.Annotations = map[string]string{shimGroup: s.PodUID}
		spec.Root = &specs.Root{Path: root, Readonly: true}
		spec.Process = &specs.Process{Args: []string{"/" + initName}, Cwd: "/", User: specs.User{UID: initUser, GID: initUser},
			Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true, OOMScoreAdj: &score}
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination != "/proc" && m.Destination != "/dev" })
		spec.Linux.CgroupsPath = cgroup.Path(s.PodUID, id)
		dir := r.sandboxDir(s.PodUID)
		list := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace},
			{Type: specs.IPCNamespace, Path: filepath.Join(dir, "ipc")}, {Type: specs.UTSNamespace, Path: filepath.Join(dir, "uts")}}
		if !s.HostNet && s.NetnsPath != "" {
			list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.NetnsPath})
		}
		spec.Linux.Namespaces, spec.Hostname = list, ""
		return nil
	}
}

// initRoot returns the file system of first processes, which is the same for all pods. It is named by its content, so
// that an update of the agent makes another beside the one in use.
func (r *Runtime) initRoot() (string, error) {
	program, err := initprogram.ELF(runtime.GOARCH)
	if err != nil {
		return "", fmt.Errorf("%w: shareProcessNamespace: %v", cruntime.ErrConfig, err)
	}
	sum := sha256.Sum256(program)
	root := filepath.Join(r.cfg.DataDir, initName, hex.EncodeToString(sum[:6]))
	file := filepath.Join(root, initName)
	if fi, err := os.Lstat(file); err == nil && fi.Mode().IsRegular() && fi.Size() == int64(len(program)) {
		return root, nil
	}
	for _, d := range []string{"proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(root, 0o755); err != nil { // whatever the umask: it is nobody who looks in
		return "", err
	}
	return root, durable.WriteFile(file, program, 0o555)
}

// endInit ends the first process of a pod, and with it all that is left in its process namespace.
func (r *Runtime) endInit(ctx context.Context, podUID string) error {
	ctx, cancel := context.WithTimeout(r.ns(ctx), initRemoval)
	defer cancel()
	id := podInitID(podUID)
	container, err := r.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = r.removeInit(ctx, podUID, container)
	}
	if err != nil {
		return fmt.Errorf("first process of pod %s: %w", podUID, err)
	}
	r.mu.Lock()
	delete(r.pods, id)
	r.mu.Unlock()
	r.inits.Delete(podUID)
	return nil
}

func (r *Runtime) removeInit(ctx context.Context, podUID string, container client.Container) error {
	if task, err := container.Task(ctx, nil); err == nil {
		if err := r.deleteTask(ctx, podUID, container.ID(), task); err != nil {
			return err
		}
	}
	if err := container.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

package ctrd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/ctrd/shim"
	"petrel.dev/petrel/internal/safefile"
)

const nsfsMagic = 0x6e736673

func (r *Runtime) sandboxDir(podUID string) string {
	return filepath.Join(r.cfg.RunDir, "pods", podUID)
}

// Sandbox implements podrun.Runtime.
func (r *Runtime) Sandbox(_ context.Context, spec cruntime.SandboxSpec) (cruntime.Sandbox, error) {
	if why := r.NotReady(); why != "" {
		return cruntime.Sandbox{}, fmt.Errorf("sandbox of pod %s: %s", spec.Name, why)
	}
	dir := r.sandboxDir(spec.PodUID)
	sb, known, err := r.sandbox(dir, spec)
	if err == nil {
		err = mountFiles(r.Files(spec.PodUID), spec.FilesRoom)
	}
	if err != nil {
		return sb, fmt.Errorf("sandbox of pod %s: %w", spec.Name, err)
	}
	if err := r.bound(spec.PodUID, spec.Resources, spec.Raise && known); err != nil {
		return sb, fmt.Errorf("sandbox of pod %s: %w", spec.Name, err)
	}
	return sb, nil
}

// sandbox makes a pod's namespaces and shared memory, or finds them: then it is known.
func (r *Runtime) sandbox(dir string, spec cruntime.SandboxSpec) (sb cruntime.Sandbox, known bool, err error) {
	ipc, uts, shm, idFile := filepath.Join(dir, "ipc"), filepath.Join(dir, "uts"), filepath.Join(dir, "shm"), filepath.Join(dir, "id")
	if id, err := safefile.Read(idFile, 64); err == nil && len(id) > 0 && pinned(ipc) && pinned(uts) {
		return cruntime.Sandbox{ID: string(id)}, true, nil
	}
	if err := r.unpin(dir); err != nil { // half made, or of before the reboot
		return sb, false, err
	}
	if err := os.MkdirAll(shm, 0o700); err != nil {
		return sb, false, err
	}
	for _, p := range []string{ipc, uts} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			return sb, false, err
		}
	}
	if err := unix.Mount("shm", shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=67108864"); err != nil {
		return sb, false, fmt.Errorf("shared memory: %w", err)
	}
	if err := pinNamespaces(ipc, uts, spec.Hostname); err != nil {
		return sb, false, err
	}
	var b [16]byte
	rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	return cruntime.Sandbox{ID: id}, false, os.WriteFile(idFile, []byte(id), 0o600)
}

func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

// pinNamespaces makes an IPC and a UTS namespace and binds them to files, which keeps them without any process in them.
func pinNamespaces(ipc, uts, hostname string) error {
	done := make(chan error, 1)
	go func() {
		// This thread leaves its namespaces and is not given back: it ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
				return fmt.Errorf("namespaces: %w", err)
			}
			if err := unix.Sethostname([]byte(hostname)); err != nil {
				return fmt.Errorf("host name %q: %w", hostname, err)
			}
			self := fmt.Sprintf("/proc/self/task/%d/ns/", unix.Gettid())
			for name, target := range map[string]string{"ipc": ipc, "uts": uts} {
				if err := unix.Mount(self+name, target, "", unix.MS_BIND, ""); err != nil {
					return fmt.Errorf("pinning the %s namespace: %w", name, err)
				}
			}
			return nil
		}()
	}()
	return <-done
}

// RemoveSandbox implements podrun.Runtime.
func (r *Runtime) RemoveSandbox(ctx context.Context, podUID string) error {
	if err := r.endInit(ctx, podUID); err != nil {
		return err
	}
	if err := r.unpin(r.sandboxDir(podUID)); err != nil {
		return fmt.Errorf("sandbox of pod %s: %w", podUID, err)
	}
	for try := 0; ; try++ {
		r.killStrays(podUID)
		err := r.cgroups.RemovePod(podUID)
		if !errors.Is(err, unix.EBUSY) || try == 20 || ctx.Err() != nil {
			return errors.Join(err, shim.RemoveSocket(r.shimSocket(podUID)))
		}
		time.Sleep(50 * time.Millisecond) // what was killed takes a moment to end
	}
}

// killStrays ends what is left in a pod's cgroup, and its shim. Its containers have ended by now; but a containerd that
// was killed while it created one knows nothing of it any more, and leaves a shim, and maybe a process that waits for its
// start, without end.
func (r *Runtime) killStrays(podUID string) {
	for _, pid := range append(r.cgroups.Processes(podUID), r.shims(podUID)...) {
		r.cfg.Log.Warn("process of an ended pod is left, ending it", "pod", podUID, "pid", pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func (r *Runtime) unpin(dir string) error {
	for _, name := range []string{"ipc", "uts", "shm", filesDir} {
		p := filepath.Join(dir, name)
		for { // a mount may lie on a mount
			err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return fmt.Errorf("unmount %s: %w", p, err)
			}
		}
	}
	return os.RemoveAll(dir)
}

// Package cruntime is the container runtime as the agent needs it: the interface, and the plain values that go in and come
// out. It knows neither pods' life (podrun), nor how a pod becomes such values (podspec), nor containerd (ctrd).
//
// runtimetest is the suite that every Runtime passes; it also holds the fake on which the packages above are tested.
package cruntime

import (
	"context"
	"syscall"
)

// Runtime runs containers. Every method may be called at any time from several goroutines; all that make something are
// idempotent, so that a caller who was killed in between can call again. Methods return when the work is done or ctx is.
type Runtime interface {
	// Sandbox makes what a pod's containers share (IPC and UTS namespaces, /dev/shm, the parent cgroup), or finds it.
	// Its ID changes exactly when it had to be made again, as after a reboot.
	Sandbox(ctx context.Context, spec SandboxSpec) (Sandbox, error)
	// Files is the directory of a pod's own small files, which its containers see one by one: hosts, hostname, resolv.conf and
	// termination messages. Sandbox makes it, with spec.FilesRoom bytes and a little more in it; whatever containers write
	// there, it holds no more than that. RemoveSandbox deletes it.
	Files(podUID string) string
	// RemoveSandbox undoes Sandbox; what is not there is no error.
	RemoveSandbox(ctx context.Context, podUID string) error
	// Containers returns every container of a pod, running or not, oldest attempt first; "" asks for all pods'.
	Containers(ctx context.Context, podUID string) ([]Container, error)
	// Image returns an image that is ready to run, or ErrNotFound; with a PlatformError in it when what is here is for
	// another machine.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image, trying each credential and then none. ErrUnreachable when the registry did not answer, for an
	// image that is here within seconds; a PlatformError when it has nothing for this machine.
	Pull(ctx context.Context, ref string, creds []Credential) (Image, error)
	// Start creates a container and runs it. A container of the same pod, name, attempt and sandbox that exists
	// already is started, or left alone when it runs. ErrConfig when it can never run.
	Start(ctx context.Context, spec ContainerSpec) (id string, err error)
	// Signal sends a signal to a container's first process, or to all of them when it is SIGKILL. A signal of 0 stands
	// for the image's own stop signal. ErrNotFound when it does not run.
	Signal(ctx context.Context, id string, sig syscall.Signal) error
	// Update changes the resources of a running container, and its share. ErrNotFound when it does not run. Of no limit (zero) it
	// makes none: limits are changed and added, not taken away.
	Update(ctx context.Context, id string, res Resources, share string) error
	// BoundPod changes the resources of a pod as a whole; raise: limits are only made larger. ErrNotFound when it has no sandbox.
	BoundPod(ctx context.Context, podUID string, res Resources, raise bool) error
	// MemoryUse returns how many bytes of memory a running container, or with id "" a pod, uses, and its limit; 0: no limit.
	MemoryUse(ctx context.Context, podUID, id string) (use, limit int64, err error)
	// DiskUsage returns how many bytes a container has written to its root file system. ErrNotFound when it is not there,
	// storage.ErrUnmeasurable when it has made too much of it to be counted.
	DiskUsage(ctx context.Context, id string) (int64, error)
	// Remove deletes a container that does not run, with its file system.
	Remove(ctx context.Context, id string) error
	// Exec runs one more process in a running container and returns its exit code.
	Exec(ctx context.Context, id string, spec ExecSpec) (exitCode int, err error)
	// Events sends the UID of a pod each time something may have changed in it ("": look at all of them), until ctx
	// ends. Events may be lost or repeated.
	Events(ctx context.Context) <-chan string
}

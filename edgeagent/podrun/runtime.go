package podrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
)

// Errors that a Runtime returns, to be found with errors.Is.
var (
	// ErrNotFound: the named image, container or sandbox is not there.
	ErrNotFound = errors.New("not found")
	// ErrUnreachable: the registry did not answer. An image that is present already may be used instead.
	ErrUnreachable = errors.New("registry unreachable")
	// ErrConfig: the container can never run as it is described; the message says what to change.
	ErrConfig = errors.New("container configuration")
)

// PlatformError is an image that exists, but only for other machines than this one.
type PlatformError struct {
	Image   string
	Have    []string // platforms that it exists for: "arm64", "arm/v7"
	Machine string   // this machine's
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("image %q exists for %s, not for this node's %s; delete the pod to have it placed on a node that fits, or build the image for %s too",
		e.Image, strings.Join(e.Have, ", "), e.Machine, e.Machine)
}

// Runtime runs containers. Every method may be called at any time from several goroutines; all that make something are
// idempotent, so that a caller who was killed in between can call again. Methods return when the work is done or ctx is.
type Runtime interface {
	// Sandbox makes what a pod's containers share (IPC and UTS namespaces, /dev/shm, the parent cgroup), or finds it.
	// Its ID changes exactly when it had to be made anew, as after a reboot.
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

// SandboxSpec says what the containers of one pod share.
type SandboxSpec struct {
	PodUID    string
	Namespace string
	Name      string
	Hostname  string
	HostIPC   bool
	HostNet   bool // the pod keeps the node's host name
	Resources Resources
	FilesRoom int64 // bytes that the agent itself writes to Files
}

// Sandbox is what the containers of a pod share, made.
type Sandbox struct {
	ID string
}

// Credential is one login for a registry.
type Credential struct {
	Username, Password string
	Token              string // identity token
}

// Image is an image that is ready to run.
type Image struct {
	Ref    string // as it was asked for
	Digest string // of its manifest: "sha256:..."
	ID     string // as status.imageID says it: "docker.io/library/busybox@sha256:..."
}

// Resources are limits in the kernel's own units; zero means none.
type Resources struct {
	CPUShares   uint64 // cgroup v1 scale, 2..262144
	CPUQuota    int64  // microseconds in each CPUPeriod
	CPUPeriod   uint64 // microseconds
	MemoryLimit int64  // bytes
	PidsLimit   int64  // processes and threads; of a pod as a whole only
	OOMScoreAdj int    // raised to what the runtime may set; of a container only
}

// Mount is a directory or file of the node, seen in a container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
	Recursive      bool   // read-only with all that is mounted below it
	Propagation    string // "", "rslave" or "rshared"
}

// Security is who a container's processes are and what they may do.
type Security struct {
	RunAsUser, RunAsGroup *int64 // nil: the image's
	NonRoot               bool
	Groups                []int64 // supplementary, fsGroup included
	StrictGroups          bool    // leave out the groups that the image's /etc/group gives its user
	Privileged            bool
	ReadOnlyRoot          bool
	NoNewPrivileges       bool
	AddCaps, DropCaps     []string // without "CAP_"; "ALL" is all
	SeccompUnconfined     bool
	SeccompDefault        bool   // the default profile was asked for, so it must be had
	SeccompProfile        string // path of a profile on the node
	AppArmorUnconfined    bool
	AppArmorDefault       bool   // the default profile was asked for, so it must be had
	AppArmorProfile       string // one that is loaded on the node; "": the runtime's own where the kernel has AppArmor
	UnmaskedProc          bool
	Sysctls               map[string]string
}

// ContainerSpec is one attempt to run one container of a pod; nothing in it needs further lookup.
type ContainerSpec struct {
	PodUID, Namespace, Pod string
	Name                   string
	Attempt                int
	SandboxID              string
	Hash                   string // of what, when changed, needs a new container

	Image      string   // reference or "name@digest", present already
	Command    []string // nil: the image's entry point
	Args       []string // nil: the image's, unless Command is set
	Env        []string // KEY=value, over the image's
	WorkingDir string
	Hostname   string // for $HOSTNAME; "": the pod's name
	Mounts     []Mount
	Security   Security
	Resources  Resources

	TTY, Stdin, StdinOnce     bool
	NetnsPath                 string // "": the node's own
	HostPID, HostIPC, HostNet bool
	SharePID                  bool   // the pod's containers see each other's processes
	LogPath                   string // the finished log, in CRI form; "" for none
}

// ContainerState is whether a container runs.
type ContainerState int

// A container is made, runs, has ended.
const (
	Created ContainerState = iota
	Running
	Exited
)

// Container is one container as the runtime sees it.
type Container struct {
	ID                     string
	PodUID, Namespace, Pod string
	Name                   string
	Attempt                int
	SandboxID, Hash        string
	Image, ImageID         string
	LogPath                string
	TTY, Stdin             bool

	State                            ContainerState
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int
	OOMKilled                        bool
	Lost                             bool   // it ended unseen, as in a power cut: ExitCode says nothing
	StartError                       string // it could not be started
}

// ExecSpec is one more process in a running container. Nil streams are empty or thrown away.
type ExecSpec struct {
	Command        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer // Stderr is unused with TTY
	TTY            bool
	Resize         <-chan Size
}

// Size of a terminal, in characters.
type Size struct{ Width, Height uint16 }

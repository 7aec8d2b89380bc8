package cruntime

import (
	"io"
	"time"
)

// SandboxSpec is what the containers of one pod share.
type SandboxSpec struct {
	PodUID    string
	Namespace string
	Name      string
	Hostname  string
	HostIPC   bool
	HostNet   bool // the pod keeps the node's host name
	Resources Resources
	// Raise says that containers run with more than Resources: limits that the pod has already are only made larger.
	Raise     bool
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
	ID     string // as in status.imageID: "docker.io/library/busybox@sha256:..."
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
	Share      string // what the pod's spec says of Resources, for the caller: Container has it again

	TTY, Stdin, StdinOnce     bool
	NetnsPath                 string // "": the node's own
	HostPID, HostIPC, HostNet bool
	TargetID                  string // of a running container of the pod, whose process namespace this one joins; "": none
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
	Share                  string // of the ContainerSpec, or of the last Update
	Image, ImageID         string
	LogPath                string
	TTY, Stdin             bool

	State                            ContainerState
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int
	OOMKilled                        bool
	Lost                             bool   // its end was not observed, as in a power cut: ExitCode means nothing
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

// Host is what the kernel and the runtime of this node can enforce.
type Host struct {
	AppArmor, SELinux bool
	// RecursiveReadOnly is true if a mount can be read-only with all that is mounted below it.
	RecursiveReadOnly bool
}

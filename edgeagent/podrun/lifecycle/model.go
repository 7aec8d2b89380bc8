package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Reasons of waiting containers, and of what holds a pod back; kubelet's.
const (
	ReasonConfig = "CreateContainerConfigError"
	ReasonKill   = "FailedKillPod"
	ReasonCrash  = "CrashLoopBackOff"
)

// State is how far a pod has come. It only ever grows.
type State int

// The states of a pod on its node. Restarts of containers happen inside PodRunning.
const (
	Wanted State = iota
	Sandboxed
	Pulling
	Initialising
	PodRunning
	Stopping
	Stopped
	Removed
)

var stateNames = [...]string{"Wanted", "Sandboxed", "Pulling", "Initialising", "Running", "Stopping", "Stopped", "Removed"}

func (s State) String() string { return stateNames[s] }

// Target is what is wanted of one pod.
type Target struct {
	Pod *corev1.Pod // never nil: of a pod that has left the set, the copy kept on disk
	// Gone is true if the pod is not in the set any more, so nobody waits for its status.
	Gone bool
}

// Deleting reports whether nothing of the pod is to stay.
func (d Target) Deleting() bool { return d.Gone || d.Pod.DeletionTimestamp != nil }

// Observed is what is known of one pod on this node. Containers are looked at again before each step; the rest is
// memory of the worker. All of it may be lost at any moment but last: then the step does it again, and everything
// that it does is idempotent.
type Observed struct {
	Admitted bool      // the node has let the pod in, in this life of the agent or an earlier one
	Rejected Rejection // it has not, and never will

	Sandbox  *Sandbox // nil: not made sure of since the agent started
	Volumes  bool     // made sure of since the agent started
	Blocked  Failure  // why sandbox or volumes are not there yet
	Released bool     // of a pod that has ended: sandbox and volumes are given back
	Removed  bool     // of a deleted pod: nothing of it is left on the node

	Containers []cruntime.Container // every attempt that the runtime still holds, oldest first
	Images     map[string]Image     // by container name, of the attempt that comes next; by VolumeImage of a volume, as long as the agent lives
	Starts     map[string]Failure   // by container name: the last attempt to start failed like this
	Backoffs   map[string]Backoff   // by container name
	Stops      map[string]time.Time // by container ID: being stopped, with a grace until then
	StopFrom   time.Time            // when the whole pod began to stop
	Probes     map[string]Probe     // by container ID
	Hooks      map[string]bool      // by container ID: its postStart hook is under way
	Messages   map[string]string    // by container ID: termination messages of exited ones

	Resize Resize
	Again  map[string]Again // by container ID: stopped to be started again, whatever its exit code

	Evict   Eviction  // set: the pod is to end, for what it has on the disk
	Discard time.Time // containers that had ended by then are removed, with their logs: the disk is short

	State   State            // of the step before, in this life of the agent
	Last    corev1.PodStatus // the status of the step before, also of an earlier life of the agent
	NodeIPs []string
	Active  time.Duration // how long the pod has been active, by a monotonic clock
}

// Rejection is why a pod may not run on this node, with kubelet's reason and text. The zero value is none.
type Rejection struct{ Reason, Message string }

// Resize is how far a change of the pod's resources has come. Target.Pod has what the node has allocated to it.
type Resize struct {
	Pending    Rejection // why the pod's spec has not been allocated; the reason is Deferred or Infeasible
	Bounds     Bounds
	Generation int64   // of the spec that was allocated last; 0: in an earlier life of the agent
	Fail       Failure // why the last try to change the kernel's limits has failed
}

// Bounds is what the pod's cgroup was last set to in this life of the agent; the zero value is not known.
type Bounds struct {
	Text    string // podspec.BoundsText
	Settled bool   // no limit is larger than it should be
}

// Eviction is why a pod is to end.
type Eviction struct {
	Message  string // empty: it is not evicted
	Pressure bool   // for the node's sake, not for limits of its own
}

// Sandbox is the pod's sandbox and its place in the network.
type Sandbox struct {
	ID    string
	Netns string   // "": host network
	IPs   []string // of the pod
}

// VolumeImage is under which key Observed.Images has the image that is a volume. No container is called so.
func VolumeImage(volume string) string { return "volume/" + volume }

// Image is how far an image is: that of a container's next attempt, or a volume's.
type Image struct {
	InFlight bool
	Ready    bool
	Ref      string // the reference that this is about
	Fail     Failure
}

// Failure is why something could not be done, as a status has it, and when to try again.
type Failure struct {
	Fault           bool // a panic of this program: nothing but time helps
	Reason, Message string
	Retry           time.Time
	Delay           time.Duration // of the back-off that retry came from
}

// Probe is what the probes of a running container have found. A container without a probe of a kind passes it.
type Probe struct {
	Started bool
	Ready   bool
	// Failed names the probe ("Liveness", "Startup") that condemned the container, with its last output.
	Failed, Output string
}

// ActionKind is what a worker can do for a pod.
type ActionKind int

const (
	MakeSandbox     ActionKind = iota // network, namespaces, cgroup
	MakeVolumes                       // mount
	PullImage                         // have the image of container, or of volume, which container mounts
	StartContainer                    // start attempt of container
	StopContainer                     // stop container id, within grace
	RemoveContainer                   // delete dead container id
	ResizePod                         // give the pod and running containers the resources that are allocated to them
	ReleasePod                        // give back volumes and sandbox, keep containers and logs
	PurgePod                          // remove everything
)

var actionNames = [...]string{"sandbox", "volumes", "pull", "start", "stop", "remove", "resize", "release", "purge"}

func (k ActionKind) String() string { return actionNames[k] }

// Again is why a container that the node ends is started again whatever its exit code.
type Again int

const (
	ByPolicy  Again = iota // it is not: its policy and its rules decide, by its exit code
	Condemned              // a probe has failed, and its policy is another than Never: it starts as one that has failed
	Renewed                // for another definition or other resources, whatever its policy: it starts at once
)

// Action is one thing to do now.
type Action struct {
	Kind      ActionKind
	Container string
	Volume    string // PullImage: the volume whose image it is; "": the container's own
	ID        string
	Attempt   int
	Grace     time.Duration
	Backoff   Backoff  // StartContainer, and RemoveContainer when it is set: the container's back-off from then on
	Why       string   // StopContainer: for the event
	Resize    []string // ResizePod: the containers, by name
	Bounds    Bounds   // MakeSandbox, ResizePod: what the pod's cgroup is set to
	Again     Again    // StopContainer: why it is started again whatever its exit code
	Target    string   // StartContainer: ID of the container whose process namespace it joins; "": its own, or its pod's
}

// Decision is what a step yields.
type Decision struct {
	State   State
	Actions []Action
	Status  corev1.PodStatus
	Wake    time.Time // look again no later than this; zero: when something happens
}

// Backoff is a container's restart delay: 10 s, doubled with each restart up to 5 min, forgotten after 10 min of peace.
// The rule and its figures are kubelet's.
type Backoff struct {
	delay time.Duration // 0: none yet
	since time.Time     // of the last change
}

const (
	BackoffFirst = 10 * time.Second
	BackoffMax   = 5 * time.Minute
)

// until returns when a container that ended at may start again; a time not after now means at once. One that ended in
// the future did so before the clock was set back, at an unknown time.
func (b Backoff) until(ended, now time.Time) time.Time {
	if b.delay == 0 || ended.Sub(b.since) > 2*BackoffMax || ended.After(now.Add(time.Second)) {
		return time.Time{}
	}
	return ended.Add(b.delay)
}

// next is the back-off once the container, which ended at, has been started again.
func (b Backoff) next(ended, now time.Time) Backoff {
	if b.delay == 0 || ended.Sub(b.since) > 2*BackoffMax {
		return Backoff{delay: BackoffFirst, since: now}
	}
	return Backoff{delay: min(2*b.delay, BackoffMax), since: now}
}

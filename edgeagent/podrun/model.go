package podrun

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
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

// target is what the set says of one pod.
type target struct {
	pod *corev1.Pod // never nil: of a pod that has left the set, the copy kept on disk
	// gone: the pod is not in the set any more, so nobody waits for its status.
	gone bool
}

func (d target) deleting() bool { return d.gone || d.pod.DeletionTimestamp != nil }

// observed is what is known of one pod on this node. Containers are looked at anew before each step; the rest is
// memory of the worker. All of it may be lost at any moment but last: then the step does it again, and everything
// that it does is idempotent.
type observed struct {
	admitted bool      // the node has let the pod in, in this life of the agent or an earlier one
	rejected rejection // it has not, and never will

	sandbox  *sandboxState // nil: not made sure of since the agent started
	volumes  bool          // made sure of since the agent started
	blocked  failure       // why sandbox or volumes are not there yet
	released bool          // of a pod that has ended: sandbox and volumes are given back
	removed  bool          // of a deleted pod: nothing of it is left on the node

	containers []cruntime.Container  // every attempt that the runtime still holds, oldest first
	images     map[string]imageState // by container name, of the attempt that comes next
	starts     map[string]failure    // by container name: the last attempt to start failed like this
	backoffs   map[string]backoff    // by container name
	stops      map[string]time.Time  // by container ID: being stopped, with a grace until then
	stopFrom   time.Time             // when the whole pod began to stop
	probes     map[string]probeState // by container ID
	hooks      map[string]bool       // by container ID: its postStart hook is under way
	messages   map[string]string     // by container ID: termination messages of exited ones

	evict   eviction  // set: the pod is to end, for what it has on the disk
	discard time.Time // containers that had ended by then are removed, with their logs: the disk is short

	state   State            // of the step before, in this life of the agent
	last    corev1.PodStatus // the status of the step before, also of an earlier life of the agent
	nodeIPs []string
	active  time.Duration // how long the pod has been active, by a clock that nobody sets
}

// eviction is why a pod is to end.
type eviction struct {
	message  string // empty: it is not evicted
	pressure bool   // for the node's sake, not for limits of its own
}

// sandboxState is the pod's sandbox and its place in the network.
type sandboxState struct {
	id    string
	netns string   // "": host network
	ips   []string // of the pod
}

// place is the sandbox as container specs name it.
func (s *sandboxState) place() podspec.Place {
	return podspec.Place{SandboxID: s.id, Netns: s.netns, IPs: s.ips}
}

// imageState is how far the image of a container's next attempt is.
type imageState struct {
	inFlight bool
	ready    bool
	ref      string // the reference that this is about
	fail     failure
}

// failure is why something could not be done, in the words of a status, and when to try again.
type failure struct {
	fault           bool // a panic of this program: nothing but time helps
	reason, message string
	retry           time.Time
	delay           time.Duration // of the back-off that retry came from
}

// probeState is what the probes of a running container say. A container without a probe of a kind passes it.
type probeState struct {
	started bool
	ready   bool
	// failed names the probe ("Liveness", "Startup") that condemned the container, with its last output.
	failed, output string
}

// actionKind is what a worker can do for a pod.
type actionKind int

const (
	actSandbox actionKind = iota // network, namespaces, cgroup
	actVolumes                   // mount
	actPull                      // have the image of container
	actStart                     // start attempt of container
	actStop                      // stop container id, within grace
	actRemove                    // delete dead container id
	actRelease                   // give back volumes and sandbox, keep containers and logs
	actPurge                     // remove everything
)

var actionNames = [...]string{"sandbox", "volumes", "pull", "start", "stop", "remove", "release", "purge"}

// action is one thing to do now.
type action struct {
	kind      actionKind
	container string
	id        string
	attempt   int
	grace     time.Duration
	backoff   backoff // actStart, actRemove when it is set: the container's back-off from then on
	why       string  // actStop: for the event
}

// decision is what a step yields.
type decision struct {
	state   State
	actions []action
	status  corev1.PodStatus
	wake    time.Time // look again no later than this; zero: when something happens
}

// backoff is a container's restart delay: 10 s, doubled with each restart up to 5 min, forgotten after 10 min of peace.
// The rule and its figures are kubelet's.
type backoff struct {
	delay time.Duration // 0: none yet
	since time.Time     // of the last change
}

const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
)

// until returns when a container that ended at may start again; a time not after now means at once. One that ended in
// the future did so before the clock was set back, nobody knows when.
func (b backoff) until(ended, now time.Time) time.Time {
	if b.delay == 0 || ended.Sub(b.since) > 2*backoffMax || ended.After(now.Add(time.Second)) {
		return time.Time{}
	}
	return ended.Add(b.delay)
}

// next is the back-off once the container, which ended at, has been started again.
func (b backoff) next(ended, now time.Time) backoff {
	if b.delay == 0 || ended.Sub(b.since) > 2*backoffMax {
		return backoff{delay: backoffFirst, since: now}
	}
	return backoff{delay: min(2*b.delay, backoffMax), since: now}
}

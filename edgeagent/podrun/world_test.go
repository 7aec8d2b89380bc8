package podrun

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// world is a node without a kernel: it carries out what a step decides, at once and without fail unless told otherwise,
// and lets a test say what the containers do.
type world struct {
	pod   *corev1.Pod
	gone  bool
	o     observed
	now   time.Time
	since time.Duration // how much time has passed, whatever the clock says
	boots int
	id    int
	trace []string // what the last settle did

	pullFails  map[string]string // by image: reason
	startFails map[string]string // by container: reason
	unready    map[string]bool   // by container: its probes have not passed yet
	deaf       map[string]bool   // by container: does not heed SIGTERM
	state      State
	lastWake   time.Time
}

func newWorld(pod *corev1.Pod) *world {
	w := &world{pod: pod, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), boots: 1,
		pullFails: map[string]string{}, startFails: map[string]string{}, unready: map[string]bool{}, deaf: map[string]bool{}}
	w.forget()
	return w
}

// forget is a restart of the agent: only what the runtime and the disk hold is left.
func (w *world) forget() {
	last, containers := w.o.last, w.o.containers
	w.o = observed{images: map[string]imageState{}, starts: map[string]failure{}, backoffs: map[string]backoff{}, stops: map[string]time.Time{},
		probes: map[string]probeState{}, messages: map[string]string{}, last: last, containers: containers, nodeIPs: []string{"192.0.2.1"}}
	w.observeProbes()
}

// reboot cuts the power.
func (w *world) reboot() {
	w.boots++
	for i := range w.o.containers {
		if c := &w.o.containers[i]; c.State == cruntime.Running {
			c.State, c.Lost, c.ExitCode, c.FinishedAt = cruntime.Exited, true, 255, w.now
		}
	}
	w.forget()
}

func (w *world) observeProbes() {
	for i := range w.o.containers {
		c := &w.o.containers[i]
		if c.State == cruntime.Running {
			p := w.o.probes[c.ID]
			p.started, p.ready = !w.unready[c.Name], !w.unready[c.Name]
			w.o.probes[c.ID] = p
		}
	}
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.now, w.since = w.now.Add(d), w.since+d }

// settle steps until nothing is left to do.
func (w *world) settle() {
	w.trace = nil
	for i := 0; ; i++ {
		if i == 100 {
			panic("does not settle: " + strings.Join(w.trace, "; "))
		}
		w.observeProbes()
		if (w.gone || w.pod.DeletionTimestamp != nil) && w.o.stopFrom.IsZero() {
			w.o.stopFrom = w.now
		}
		w.o.active = w.since
		d := step(target{pod: w.pod, gone: w.gone}, w.o, w.now)
		w.o.last, w.o.state, w.state, w.lastWake = d.status, d.state, d.state, d.wake
		if len(d.actions) == 0 && !d.wake.Equal(w.now) {
			return
		}
		for _, a := range d.actions {
			w.do(a)
		}
	}
}

func (w *world) do(a action) {
	text := actionNames[a.kind]
	switch a.kind {
	case actSandbox:
		w.o.sandbox = &sandboxState{id: fmt.Sprint("sandbox-", w.boots), netns: "/ns", ips: []string{"10.42.0.5"}}
	case actVolumes:
		w.o.volumes = true
	case actPull:
		c := kube.ContainerNamed(w.pod, a.container)
		img := imageState{ref: c.Image, ready: true}
		if why := w.pullFails[c.Image]; why != "" {
			delay := min(max(2*w.o.images[a.container].fail.delay, 10*time.Second), 5*time.Minute)
			img = imageState{ref: c.Image, fail: failure{reason: why, retry: w.now.Add(delay), delay: delay}}
		}
		w.o.images[a.container] = img
		text += " " + a.container
	case actStart:
		text += fmt.Sprintf(" %s#%d", a.container, a.attempt)
		delete(w.o.images, a.container)
		if why := w.startFails[a.container]; why != "" {
			w.o.starts[a.container] = failure{reason: why, retry: w.now.Add(10 * time.Second)}
			break
		}
		delete(w.o.starts, a.container)
		w.o.backoffs[a.container] = a.backoff
		w.id++
		c := cruntime.Container{ID: fmt.Sprint("c", w.id), Name: a.container, Attempt: a.attempt, SandboxID: w.o.sandbox.id, State: cruntime.Running,
			Image: kube.ContainerNamed(w.pod, a.container).Image, Hash: podspec.Hash(*kube.ContainerNamed(w.pod, a.container)), CreatedAt: w.now, StartedAt: w.now}
		w.o.containers = append(w.o.containers, c)
		slices.SortStableFunc(w.o.containers, func(a, b cruntime.Container) int { return strings.Compare(a.Name, b.Name) })
	case actStop:
		text += fmt.Sprintf(" %s within %v", a.container, a.grace)
		w.o.stops[a.id] = w.now.Add(a.grace)
		if !w.deaf[a.container] {
			w.exit(a.id, 143)
		}
	case actRemove:
		text += fmt.Sprintf(" %s#%d", a.container, a.attempt)
		w.o.containers = slices.DeleteFunc(w.o.containers, func(c cruntime.Container) bool { return c.ID == a.id })
		if a.backoff != (backoff{}) {
			w.o.backoffs[a.container] = a.backoff
		}
	case actRelease:
		w.o.sandbox, w.o.volumes, w.o.released = nil, false, true
	case actPurge:
		w.o.containers, w.o.sandbox, w.o.volumes, w.o.released, w.o.removed = nil, nil, false, true, true
	}
	w.trace = append(w.trace, text)
}

// exit ends a running container.
func (w *world) exit(id string, code int) {
	for i := range w.o.containers {
		if c := &w.o.containers[i]; c.ID == id && c.State == cruntime.Running {
			c.State, c.ExitCode, c.FinishedAt = cruntime.Exited, code, w.now
			delete(w.o.stops, id)
			delete(w.o.probes, id)
		}
	}
}

// running returns the running container of a name, or nil.
func (w *world) running(name string) *cruntime.Container {
	for i := range w.o.containers {
		if c := &w.o.containers[i]; c.Name == name && c.State == cruntime.Running {
			return c
		}
	}
	return nil
}

// summary is the status in one line.
func (w *world) summary() string {
	st := &w.o.last
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", w.state, st.Phase)
	if st.Reason != "" {
		fmt.Fprintf(&b, "(%s)", st.Reason)
	}
	conds := ""
	for kind, short := range map[corev1.PodConditionType]string{corev1.PodReadyToStartContainers: "N", corev1.PodInitialized: "I", corev1.ContainersReady: "C", corev1.PodReady: "R",
		corev1.AllContainersRestarting: "A"} {
		if kube.IsConditionTrue(st.Conditions, kind) {
			conds += short
		}
	}
	s := []byte(conds)
	slices.Sort(s)
	fmt.Fprintf(&b, " [%s]", s)
	for _, cs := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses) {
		fmt.Fprintf(&b, " %s#%d=", cs.Name, cs.RestartCount)
		switch {
		case cs.State.Running != nil:
			b.WriteString("running")
		case cs.State.Terminated != nil:
			fmt.Fprintf(&b, "%s/%d", cs.State.Terminated.Reason, cs.State.Terminated.ExitCode)
		case cs.State.Waiting != nil:
			b.WriteString(cs.State.Waiting.Reason)
		}
		if t := cs.LastTerminationState.Terminated; t != nil {
			fmt.Fprintf(&b, "(was %s/%d)", t.Reason, t.ExitCode)
		}
		if cs.Ready {
			b.WriteString("+")
		}
	}
	if !w.lastWake.IsZero() {
		fmt.Fprintf(&b, " wake in %v", w.lastWake.Sub(w.now))
	}
	return b.String()
}

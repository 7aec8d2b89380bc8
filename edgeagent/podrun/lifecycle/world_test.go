package lifecycle

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
	o     Observed
	now   time.Time
	since time.Duration // how much time has passed, whatever the clock says
	boots int
	id    int
	trace []string // what the last settle did

	pullFails  map[string]string // by image: reason
	startFails map[string]string // by container: reason
	unready    map[string]bool   // by container: its probes have not passed yet
	deaf       map[string]bool   // by container: does not obey SIGTERM
	resizeFail string            // why a resize fails
	stopCode   int               // with which containers end that are asked to
	state      State
	lastWake   time.Time
}

func newWorld(pod *corev1.Pod) *world {
	w := &world{pod: pod, stopCode: 143, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), boots: 1,
		pullFails: map[string]string{}, startFails: map[string]string{}, unready: map[string]bool{}, deaf: map[string]bool{}}
	w.forget()
	return w
}

// forget is a restart of the agent: only what the runtime and the disk hold is left.
func (w *world) forget() {
	last, containers := w.o.Last, w.o.Containers
	w.o = Observed{Images: map[string]Image{}, Starts: map[string]Failure{}, Backoffs: map[string]Backoff{}, Stops: map[string]time.Time{}, Again: map[string]Again{},
		Probes: map[string]Probe{}, Messages: map[string]string{}, Last: last, Containers: containers, NodeIPs: []string{"192.0.2.1"}}
	w.observeProbes()
}

// reboot cuts the power.
func (w *world) reboot() {
	w.boots++
	for i := range w.o.Containers {
		if c := &w.o.Containers[i]; c.State == cruntime.Running {
			c.State, c.Lost, c.ExitCode, c.FinishedAt = cruntime.Exited, true, 255, w.now
		}
	}
	w.forget()
}

func (w *world) observeProbes() {
	for i := range w.o.Containers {
		c := &w.o.Containers[i]
		if c.State == cruntime.Running {
			p := w.o.Probes[c.ID]
			p.Started, p.Ready = !w.unready[c.Name], !w.unready[c.Name]
			w.o.Probes[c.ID] = p
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
		if (w.gone || w.pod.DeletionTimestamp != nil) && w.o.StopFrom.IsZero() {
			w.o.StopFrom = w.now
		}
		w.o.Active = w.since
		d := Step(Target{Pod: w.pod, Gone: w.gone}, w.o, w.now)
		w.o.Last, w.o.State, w.state, w.lastWake = d.Status, d.State, d.State, d.Wake
		if len(d.Actions) == 0 && !d.Wake.Equal(w.now) {
			return
		}
		for _, a := range d.Actions {
			w.do(a)
		}
	}
}

func (w *world) do(a Action) {
	text := a.Kind.String()
	switch a.Kind {
	case MakeSandbox:
		w.o.Sandbox = &Sandbox{ID: fmt.Sprint("sandbox-", w.boots), Netns: "/ns", IPs: []string{"10.42.0.5"}}
		w.o.Resize.Bounds = a.Bounds
	case MakeVolumes:
		w.o.Volumes = true
	case PullImage:
		key, ref := a.Container, kube.ContainerNamed(w.pod, a.Container).Image
		if a.Volume != "" {
			i := slices.IndexFunc(w.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == a.Volume })
			key, ref = VolumeImage(a.Volume), w.pod.Spec.Volumes[i].Image.Reference
		}
		img := Image{Ref: ref, Ready: true}
		if why := w.pullFails[ref]; why != "" {
			delay := min(max(2*w.o.Images[key].Fail.Delay, 10*time.Second), 5*time.Minute)
			img = Image{Ref: ref, Fail: Failure{Reason: why, Retry: w.now.Add(delay), Delay: delay}}
		}
		w.o.Images[key] = img
		text += " " + key
	case StartContainer:
		text += fmt.Sprintf(" %s#%d", a.Container, a.Attempt)
		if a.Target != "" {
			text += " in " + a.Target
		}
		delete(w.o.Images, a.Container)
		if why := w.startFails[a.Container]; why != "" {
			w.o.Starts[a.Container] = Failure{Reason: why, Retry: w.now.Add(10 * time.Second)}
			break
		}
		delete(w.o.Starts, a.Container)
		w.o.Backoffs[a.Container] = a.Backoff
		w.id++
		c := cruntime.Container{ID: fmt.Sprint("c", w.id), Name: a.Container, Attempt: a.Attempt, SandboxID: w.o.Sandbox.ID, State: cruntime.Running,
			Image: kube.ContainerNamed(w.pod, a.Container).Image, Hash: podspec.Hash(*kube.ContainerNamed(w.pod, a.Container)),
			Share: podspec.ShareOf(w.pod, kube.ContainerNamed(w.pod, a.Container)).String(), CreatedAt: w.now, StartedAt: w.now}
		w.o.Containers = append(w.o.Containers, c)
		slices.SortStableFunc(w.o.Containers, func(a, b cruntime.Container) int { return strings.Compare(a.Name, b.Name) })
	case StopContainer:
		text += fmt.Sprintf(" %s within %v", a.Container, a.Grace)
		w.o.Stops[a.ID] = w.now.Add(a.Grace)
		if a.Again != ByPolicy {
			w.o.Again[a.ID] = a.Again
		}
		if !w.deaf[a.Container] {
			w.exit(a.ID, w.stopCode)
		}
	case ResizePod:
		w.o.Resize.Fail = Failure{}
		text += fmt.Sprintf(" to %s", a.Bounds.Text)
		if !a.Bounds.Settled {
			text += " or more"
		}
		if w.resizeFail != "" {
			w.o.Resize.Fail = Failure{Reason: "Error", Message: w.resizeFail, Retry: w.now.Add(time.Second)}
			break
		}
		w.o.Resize.Bounds = a.Bounds
		for _, name := range a.Resize {
			text += " " + name
			w.running(name).Share = podspec.ShareOf(w.pod, kube.ContainerNamed(w.pod, name)).String()
		}
	case RemoveContainer:
		text += fmt.Sprintf(" %s#%d", a.Container, a.Attempt)
		w.o.Containers = slices.DeleteFunc(w.o.Containers, func(c cruntime.Container) bool { return c.ID == a.ID })
		if a.Backoff != (Backoff{}) {
			w.o.Backoffs[a.Container] = a.Backoff
		}
	case ReleasePod:
		w.o.Sandbox, w.o.Volumes, w.o.Released = nil, false, true
	case PurgePod:
		w.o.Containers, w.o.Sandbox, w.o.Volumes, w.o.Released, w.o.Removed = nil, nil, false, true, true
	}
	w.trace = append(w.trace, text)
}

// exit ends a running container.
func (w *world) exit(id string, code int) {
	for i := range w.o.Containers {
		if c := &w.o.Containers[i]; c.ID == id && c.State == cruntime.Running {
			c.State, c.ExitCode, c.FinishedAt = cruntime.Exited, code, w.now
			delete(w.o.Stops, id)
			delete(w.o.Probes, id)
		}
	}
}

// running returns the running container of a name, or nil.
func (w *world) running(name string) *cruntime.Container {
	for i := range w.o.Containers {
		if c := &w.o.Containers[i]; c.Name == name && c.State == cruntime.Running {
			return c
		}
	}
	return nil
}

// summary is the status in one line.
func (w *world) summary() string {
	st := &w.o.Last
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
	for _, cs := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses) {
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
		if cpu := cs.AllocatedResources[corev1.ResourceCPU]; cs.Resources != nil && !cpu.IsZero() {
			fmt.Fprintf(&b, "{%s of %s}", cs.Resources.Requests.Cpu(), &cpu)
		}
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress} {
		if c := kube.FindCondition(st.Conditions, kind); c != nil {
			fmt.Fprintf(&b, " %s(%s)@%d", kind, strings.TrimSpace(c.Reason+" "+c.Message), c.ObservedGeneration)
		}
	}
	if !w.lastWake.IsZero() {
		fmt.Fprintf(&b, " wake in %v", w.lastWake.Sub(w.now))
	}
	return b.String()
}

package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// stepper is one step in the making.
type stepper struct {
	d       Target
	o       Observed
	now     time.Time
	current map[string]*cruntime.Container // newest attempt, by container name
	waiting map[string]corev1.ContainerStateWaiting
	resized resized
	out     Decision
}

// Step decides what to do for a pod now.
func Step(d Target, o Observed, now time.Time) Decision {
	s := &stepper{d: d, o: o, now: now, current: map[string]*cruntime.Container{}, waiting: map[string]corev1.ContainerStateWaiting{}}
	for i := range o.Containers {
		c := &o.Containers[i]
		if old := s.current[c.Name]; old == nil || old.Attempt <= c.Attempt {
			s.current[c.Name] = c
		}
	}
	s.resized = s.differing()
	switch {
	case d.Deleting():
		s.stopAll(int64Or(d.Pod.DeletionGracePeriodSeconds, Grace(d.Pod)), "Stopping container %s", s.purge)
	case o.Rejected.Reason != "" && !Ended(o.Last.Phase):
		s.out.State = Stopped
	case Ended(o.Last.Phase):
		s.stopAll(s.endGrace(), "Stopping container %s", s.release)
	case o.Evict.Message != "":
		s.stopAll(min(Grace(d.Pod), evictionGrace), "Stopping container %s", s.release)
	case s.overDeadline():
		s.stopAll(Grace(d.Pod), "Stopping container %s", s.release)
	default:
		s.run()
	}
	s.out.State = max(s.out.State, o.State)
	s.out.Status = s.status()
	if Ended(s.out.Status.Phase) && !Ended(o.Last.Phase) {
		s.at(now) // there is more to do for a pod that has ended
	}
	return s.out
}

// Ended reports whether a pod in this phase never runs again.
func Ended(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

func (s *stepper) do(a Action) { s.out.Actions = append(s.out.Actions, a) }

// at asks for another step at t.
func (s *stepper) at(t time.Time) {
	if !t.IsZero() && (s.out.Wake.IsZero() || t.Before(s.out.Wake)) {
		s.out.Wake = t
	}
}

func (s *stepper) wait(container, reason, message string) {
	s.waiting[container] = corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

// stopAll stops every container, sidecars last and in reverse order, then calls then.
func (s *stepper) stopAll(grace int64, why string, then func()) {
	s.out.State = Stopping
	left := kube.Seconds(grace)
	if !s.o.StopFrom.IsZero() { // the last one still has a moment to act on the signal
		left = max(left-s.now.Sub(s.o.StopFrom), min(left, LeastGrace))
	}
	running := 0
	stop := func(c *cruntime.Container) {
		running++
		// Again when it is to be sooner: deletion was asked for once more, with a shorter grace.
		if end := s.o.Stops[c.ID]; end.IsZero() || end.After(s.now.Add(left+time.Second)) {
			s.do(Action{Kind: StopContainer, Container: c.Name, ID: c.ID, Grace: left, Why: fmt.Sprintf(why, c.Name)})
		}
	}
	sidecar := map[string]bool{}
	for _, c := range s.d.Pod.Spec.InitContainers {
		sidecar[c.Name] = kube.IsSidecar(&c)
	}
	for i := range s.o.Containers {
		if c := &s.o.Containers[i]; c.State == cruntime.Running && !sidecar[c.Name] {
			stop(c)
		}
	}
	for i := len(s.d.Pod.Spec.InitContainers) - 1; i >= 0 && running == 0; i-- {
		if c := s.current[s.d.Pod.Spec.InitContainers[i].Name]; c != nil && c.State == cruntime.Running {
			stop(c)
		}
	}
	if running == 0 {
		s.out.State = Stopped
		then()
	}
}

// LeastGrace is what is left of any grace but none, as kubelet has it.
const LeastGrace = 2 * time.Second

// release gives back what a pod that has ended holds of the node; its containers and logs stay, for those who ask why.
func (s *stepper) release() {
	switch {
	case s.stuck():
	case !s.o.Released:
		s.do(Action{Kind: ReleasePod})
	default:
		s.discard()
	}
}

// purge removes all that a deleted pod has on the node.
func (s *stepper) purge() {
	if s.o.Removed {
		s.out.State = Removed
		return
	}
	if !s.stuck() {
		s.do(Action{Kind: PurgePod})
	}
}

// stuck reports whether what the pod holds could not be given back just now; it is tried again a little later each time.
func (s *stepper) stuck() bool {
	if s.o.Blocked.Reason != ReasonKill || !s.now.Before(s.o.Blocked.Retry) {
		return false
	}
	s.at(s.o.Blocked.Retry)
	return true
}

// overDeadline reports whether the pod has run longer than activeDeadlineSeconds allows.
func (s *stepper) overDeadline() bool {
	limit := s.d.Pod.Spec.ActiveDeadlineSeconds
	if limit == nil || s.o.Last.StartTime == nil {
		return false
	}
	left := kube.Seconds(*limit) - s.o.Active
	if left > 0 {
		s.at(s.now.Add(left))
	}
	return left <= 0
}

// run brings a pod up and keeps it up.
func (s *stepper) run() {
	if s.o.Sandbox == nil || !s.o.Volumes {
		s.out.State = Wanted
		if s.now.Before(s.o.Blocked.Retry) {
			s.at(s.o.Blocked.Retry)
			return
		}
		if s.o.Sandbox == nil {
			s.do(Action{Kind: MakeSandbox, Bounds: Bounds{Text: podspec.BoundsText(s.d.Pod), Settled: !s.resized.any()}})
		}
		s.do(Action{Kind: MakeVolumes})
		return
	}
	s.out.State = Sandboxed
	if !s.restartAll() {
		s.resize()
		s.bringUp()
		s.startEphemeral()
	}
}

// bringUp goes through the init containers, and then keeps the others as their policies want.
func (s *stepper) bringUp() {
	if !s.initialise() {
		return
	}
	alive := false
	for _, c := range s.d.Pod.Spec.Containers {
		if s.keep(c, false) {
			alive = true
		}
		if s.settingUp(c) { // the next one may rely on what the hook does
			alive = true
			break
		}
	}
	if s.begun() || slices.ContainsFunc(s.out.Actions, func(a Action) bool { return a.Kind == StartContainer }) {
		s.out.State = PodRunning
	}
	if !alive && len(s.out.Actions) == 0 && Ended(s.phase()) {
		s.stopSidecars()
	}
	s.dropOld()
}

// settingUp reports whether a container's postStart hook is under way, or will be as soon as its image is here.
func (s *stepper) settingUp(c corev1.Container) bool {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return false
	}
	coming := func(key string) bool { return s.o.Images[key].InFlight && s.o.Images[key].Fail.Reason == "" }
	rec := s.inSandbox(c.Name)
	return rec != nil && s.o.Hooks[rec.ID] || coming(c.Name) ||
		slices.ContainsFunc(kube.ImageVolumes(s.d.Pod, &c), func(v *corev1.Volume) bool { return coming(VolumeImage(v.Name)) }) ||
		slices.ContainsFunc(s.out.Actions, func(a Action) bool { return a.Kind != StopContainer && a.Container == c.Name })
}

// stopSidecars ends the sidecars of a pod whose containers have all ended for good.
func (s *stepper) stopSidecars() {
	for _, ic := range s.d.Pod.Spec.InitContainers {
		if c := s.current[ic.Name]; c != nil && c.State == cruntime.Running && s.o.Stops[c.ID].IsZero() {
			s.do(Action{Kind: StopContainer, Container: c.Name, ID: c.ID, Grace: kube.Seconds(Grace(s.d.Pod)), Why: "Stopping container " + c.Name})
		}
	}
}

// initialise goes through the init containers in order and reports whether the others may run.
func (s *stepper) initialise() bool {
	begun := s.begun()
	for _, c := range s.d.Pod.Spec.InitContainers {
		rec := s.inSandbox(c.Name)
		switch {
		case kube.IsSidecar(&c):
			up := s.keep(c, true) && s.o.Probes[rec.ID].Started
			if !up && !begun {
				s.out.State = max(s.out.State, Initialising)
				return false
			}
		case begun:
		case rec != nil && rec.State == cruntime.Exited && rec.ExitCode == 0 && !rec.Lost:
		default:
			s.keep(c, rec == nil) // done in a sandbox that is no more: once again
			s.out.State = max(s.out.State, Initialising)
			return false
		}
	}
	return true
}

// begun reports whether a regular container has been started in this sandbox, so the init containers are behind it.
func (s *stepper) begun() bool {
	for _, c := range s.d.Pod.Spec.Containers {
		if s.inSandbox(c.Name) != nil {
			return true
		}
	}
	return false
}

// inSandbox returns the newest attempt of a container if it belongs to the sandbox that is there now, else nil.
func (s *stepper) inSandbox(name string) *cruntime.Container {
	if c := s.current[name]; c != nil && s.o.Sandbox != nil && c.SandboxID == s.o.Sandbox.ID {
		return c
	}
	return nil
}

// keep keeps one container as its policy wants, or always, and reports whether it runs.
func (s *stepper) keep(c corev1.Container, always bool) bool {
	rec := s.current[c.Name]
	if rec == nil {
		s.start(c, s.nextAttempt(c.Name, nil), s.o.Backoffs[c.Name])
		return false
	}
	inSandbox := rec.SandboxID == s.o.Sandbox.ID
	if rec.State == cruntime.Running {
		p, then, again := s.o.Probes[rec.ID], "", ByPolicy
		if always || restartsKilled(&s.d.Pod.Spec, &c) {
			then, again = ", will be restarted", Condemned
		}
		switch {
		case !s.o.Stops[rec.ID].IsZero():
		case !inSandbox:
			s.stop(rec, c, nil, again, fmt.Sprintf("Container %s belongs to an earlier sandbox%s", c.Name, then))
		case p.Failed == "Startup":
			s.stop(rec, c, c.StartupProbe, again, fmt.Sprintf("Container %s failed startup probe%s", c.Name, then))
		case p.Failed == "Liveness":
			s.stop(rec, c, c.LivenessProbe, again, fmt.Sprintf("Container %s failed liveness probe%s", c.Name, then))
		case rec.Hash != podspec.Hash(c):
			s.stop(rec, c, nil, Renewed, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name))
		case slices.Contains(s.resized.restart, c.Name):
			s.stop(rec, c, nil, Renewed, fmt.Sprintf("Container %s resize requires restart", c.Name))
		}
		return inSandbox
	}
	if rec.State == cruntime.Created && inSandbox { // killed between create and start: the same attempt again
		s.start(c, rec.Attempt, s.o.Backoffs[c.Name])
		return false
	}
	if !always && s.o.Again[rec.ID] == ByPolicy && !restarts(&s.d.Pod.Spec, &c, endCode(rec), !rec.Lost) {
		return false
	}
	b := s.o.Backoffs[c.Name]
	if rec.Hash != podspec.Hash(c) || s.o.Again[rec.ID] == Renewed { // what failed is not what is wanted now, or nothing has
		b = Backoff{}
	}
	if until := b.until(rec.FinishedAt, s.now); inSandbox && s.now.Before(until) {
		if rec.StartError != "" && rec.Attempt == 0 {
			s.wait(c.Name, "RunContainerError", rec.StartError)
		} else {
			s.waitBackOff(c.Name, b)
		}
		s.at(until)
		return false
	}
	s.start(c, s.nextAttempt(c.Name, rec), b.next(rec.FinishedAt, s.now))
	return false
}

// nextAttempt numbers the next try. When the runtime's own record is lost, the last status still knows.
func (s *stepper) nextAttempt(name string, rec *cruntime.Container) int {
	n := 0
	if rec != nil {
		n = rec.Attempt + 1
	}
	if old := kube.ContainerStatusNamed(&s.o.Last, name); old != nil && old.ContainerID != "" {
		n = max(n, int(old.RestartCount)+1)
	}
	return n
}

// stop ends a container. p is the probe that has condemned it, if one has; its grace then comes before the pod's. What the node ends to start
// it again has no end of its own: its exit code decides nothing.
func (s *stepper) stop(rec *cruntime.Container, c corev1.Container, p *corev1.Probe, again Again, why string) {
	grace := Grace(s.d.Pod)
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		grace = *p.TerminationGracePeriodSeconds
	}
	s.do(Action{Kind: StopContainer, Container: c.Name, ID: rec.ID, Grace: kube.Seconds(grace), Again: again, Why: why})
}

// start starts a container as soon as its images are there, first those that it mounts, and an earlier failure has cooled down.
func (s *stepper) start(c corev1.Container, attempt int, b Backoff) {
	fail := s.o.Starts[c.Name]
	if s.now.Before(fail.Retry) {
		s.wait(c.Name, fail.Reason, fail.Message)
		s.at(fail.Retry)
		return
	}
	for _, v := range kube.ImageVolumes(s.d.Pod, &c) {
		if !s.image(VolumeImage(v.Name), v.Image.Reference, Action{Kind: PullImage, Container: c.Name, Volume: v.Name, Attempt: attempt}) {
			return
		}
	}
	if !s.image(c.Name, c.Image, Action{Kind: PullImage, Container: c.Name, Attempt: attempt}) {
		return
	}
	if fail.Reason != "" {
		s.wait(c.Name, fail.Reason, fail.Message)
	}
	s.do(Action{Kind: StartContainer, Container: c.Name, Attempt: attempt, Backoff: b, Target: s.target(c.Name)})
}

// image reports whether an image is there. Otherwise the container waits, and pull brings it unless that is under way or has to wait.
func (s *stepper) image(key, ref string, pull Action) bool {
	img := s.o.Images[key]
	if img.Ref != ref {
		img = Image{}
	}
	if img.Ready {
		return true
	}
	s.out.State = max(s.out.State, Pulling)
	if img.Fail.Reason != "" {
		s.wait(pull.Container, img.Fail.Reason, img.Fail.Message)
	}
	asked := func(a Action) bool { return a.Kind == PullImage && a.Volume != "" && a.Volume == pull.Volume } // by another container
	switch {
	case img.InFlight, slices.ContainsFunc(s.out.Actions, asked):
	case s.now.Before(img.Fail.Retry):
		s.at(img.Fail.Retry)
	default:
		s.do(pull)
	}
	return false
}

// dropOld deletes dead attempts but the last before the newest: that one still serves "logs --previous" and lastState.
// When the disk is short it goes as well.
func (s *stepper) dropOld() {
	for i := range s.o.Containers {
		c := &s.o.Containers[i]
		old, cur := !s.o.Discard.IsZero() && c.FinishedAt.Before(s.o.Discard), s.current[c.Name]
		if c.State != cruntime.Running && (c.Attempt < cur.Attempt-1 || old && c.Attempt < cur.Attempt) {
			s.do(Action{Kind: RemoveContainer, Container: c.Name, ID: c.ID, Attempt: c.Attempt})
		}
	}
}

// Grace returns how long, in seconds, a pod may take to end when it is asked to.
func Grace(p *corev1.Pod) int64 { return int64Or(p.Spec.TerminationGracePeriodSeconds, 30) }

func int64Or(p *int64, d int64) int64 {
	if p == nil {
		return d
	}
	return *p
}

package podrun

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// stepper is one step in the making.
type stepper struct {
	d       target
	o       observed
	now     time.Time
	current map[string]*cruntime.Container // newest attempt, by container name
	waiting map[string]corev1.ContainerStateWaiting
	out     decision
}

// step decides what to do for a pod now.
func step(d target, o observed, now time.Time) decision {
	s := &stepper{d: d, o: o, now: now, current: map[string]*cruntime.Container{}, waiting: map[string]corev1.ContainerStateWaiting{}}
	for i := range o.containers {
		c := &o.containers[i]
		if old := s.current[c.Name]; old == nil || old.Attempt <= c.Attempt {
			s.current[c.Name] = c
		}
	}
	switch {
	case d.deleting():
		s.stopAll(int64Or(d.pod.DeletionGracePeriodSeconds, graceOf(d.pod)), "Stopping container %s", s.purge)
	case o.rejected.reason != "" && !ended(o.last.Phase):
		s.out.state = Stopped
	case ended(o.last.Phase):
		s.stopAll(s.endGrace(), "Stopping container %s", s.release)
	case o.evict.message != "":
		s.stopAll(min(graceOf(d.pod), evictionGrace), "Stopping container %s", s.release)
	case s.overDeadline():
		s.stopAll(graceOf(d.pod), "Stopping container %s", s.release)
	default:
		s.run()
	}
	s.out.state = max(s.out.state, o.state)
	s.out.status = s.status()
	if ended(s.out.status.Phase) && !ended(o.last.Phase) {
		s.at(now) // there is more to do for a pod that has ended
	}
	return s.out
}

func ended(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

func (s *stepper) do(a action) { s.out.actions = append(s.out.actions, a) }

// at asks for another step at t.
func (s *stepper) at(t time.Time) {
	if !t.IsZero() && (s.out.wake.IsZero() || t.Before(s.out.wake)) {
		s.out.wake = t
	}
}

func (s *stepper) wait(container, reason, message string) {
	s.waiting[container] = corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

// stopAll stops every container, sidecars last and in reverse order, then calls then.
func (s *stepper) stopAll(grace int64, why string, then func()) {
	s.out.state = Stopping
	left := kube.Seconds(grace)
	if !s.o.stopFrom.IsZero() { // whoever comes last still gets a moment to act on the signal
		left = max(left-s.now.Sub(s.o.stopFrom), min(left, leastGrace))
	}
	running := 0
	stop := func(c *cruntime.Container) {
		running++
		// Again when it is to be sooner: somebody has asked a second time, with less patience.
		if end := s.o.stops[c.ID]; end.IsZero() || end.After(s.now.Add(left+time.Second)) {
			s.do(action{kind: actStop, container: c.Name, id: c.ID, grace: left, why: fmt.Sprintf(why, c.Name)})
		}
	}
	sidecar := map[string]bool{}
	for _, c := range s.d.pod.Spec.InitContainers {
		sidecar[c.Name] = kube.IsSidecar(&c)
	}
	for i := range s.o.containers {
		if c := &s.o.containers[i]; c.State == cruntime.Running && !sidecar[c.Name] {
			stop(c)
		}
	}
	for i := len(s.d.pod.Spec.InitContainers) - 1; i >= 0 && running == 0; i-- {
		if c := s.current[s.d.pod.Spec.InitContainers[i].Name]; c != nil && c.State == cruntime.Running {
			stop(c)
		}
	}
	if running == 0 {
		s.out.state = Stopped
		then()
	}
}

// leastGrace is what is left of any grace but none, as kubelet has it.
const leastGrace = 2 * time.Second

func (s *stepper) release() {
	switch {
	case s.stuck():
	case !s.o.released:
		s.do(action{kind: actRelease})
	default:
		s.discard()
	}
}

func (s *stepper) purge() {
	if s.o.removed {
		s.out.state = Removed
		return
	}
	if !s.stuck() {
		s.do(action{kind: actPurge})
	}
}

// stuck: what the pod holds could not be given back just now; it is tried again a little later each time.
func (s *stepper) stuck() bool {
	if s.o.blocked.reason != reasonKill || !s.now.Before(s.o.blocked.retry) {
		return false
	}
	s.at(s.o.blocked.retry)
	return true
}

// overDeadline: the pod has run longer than activeDeadlineSeconds allows.
func (s *stepper) overDeadline() bool {
	limit := s.d.pod.Spec.ActiveDeadlineSeconds
	if limit == nil || s.o.last.StartTime == nil {
		return false
	}
	left := kube.Seconds(*limit) - s.o.active
	if left > 0 {
		s.at(s.now.Add(left))
	}
	return left <= 0
}

// run brings a pod up and keeps it up.
func (s *stepper) run() {
	if s.o.sandbox == nil || !s.o.volumes {
		s.out.state = Wanted
		if s.now.Before(s.o.blocked.retry) {
			s.at(s.o.blocked.retry)
			return
		}
		if s.o.sandbox == nil {
			s.do(action{kind: actSandbox})
		}
		s.do(action{kind: actVolumes})
		return
	}
	s.out.state = Sandboxed
	if s.restartAll() || !s.initialise() {
		return
	}
	alive := false
	for _, c := range s.d.pod.Spec.Containers {
		if s.keep(c, false) {
			alive = true
		}
		if s.settingUp(c) { // the next one may rely on what the hook does
			alive = true
			break
		}
	}
	if s.begun() || slices.ContainsFunc(s.out.actions, func(a action) bool { return a.kind == actStart }) {
		s.out.state = PodRunning
	}
	if !alive && len(s.out.actions) == 0 && ended(s.phase()) {
		s.stopSidecars()
	}
	s.dropOld()
}

// settingUp: a container's postStart hook is under way, or will be as soon as its image is here.
func (s *stepper) settingUp(c corev1.Container) bool {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return false
	}
	rec, img := s.inSandbox(c.Name), s.o.images[c.Name]
	return rec != nil && s.o.hooks[rec.ID] || img.inFlight && img.fail.reason == "" ||
		slices.ContainsFunc(s.out.actions, func(a action) bool { return a.kind != actStop && a.container == c.Name })
}

// stopSidecars ends the sidecars of a pod whose containers have all ended for good.
func (s *stepper) stopSidecars() {
	for _, ic := range s.d.pod.Spec.InitContainers {
		if c := s.current[ic.Name]; c != nil && c.State == cruntime.Running && s.o.stops[c.ID].IsZero() {
			s.do(action{kind: actStop, container: c.Name, id: c.ID, grace: kube.Seconds(graceOf(s.d.pod)), why: "Stopping container " + c.Name})
		}
	}
}

// initialise goes through the init containers in order; true: the others may run.
func (s *stepper) initialise() bool {
	begun := s.begun()
	for _, c := range s.d.pod.Spec.InitContainers {
		rec := s.inSandbox(c.Name)
		switch {
		case kube.IsSidecar(&c):
			up := s.keep(c, true) && s.o.probes[rec.ID].started
			if !up && !begun {
				s.out.state = max(s.out.state, Initialising)
				return false
			}
		case begun:
		case rec != nil && rec.State == cruntime.Exited && rec.ExitCode == 0 && !rec.Lost:
		default:
			s.keep(c, rec == nil) // done in a sandbox that is no more: once again
			s.out.state = max(s.out.state, Initialising)
			return false
		}
	}
	return true
}

// begun: a regular container has been started in this sandbox, so the init containers are behind it.
func (s *stepper) begun() bool {
	for _, c := range s.d.pod.Spec.Containers {
		if s.inSandbox(c.Name) != nil {
			return true
		}
	}
	return false
}

func (s *stepper) inSandbox(name string) *cruntime.Container {
	if c := s.current[name]; c != nil && s.o.sandbox != nil && c.SandboxID == s.o.sandbox.id {
		return c
	}
	return nil
}

// keep keeps one container as its policy wants, or always; true: it runs.
func (s *stepper) keep(c corev1.Container, always bool) bool {
	rec := s.current[c.Name]
	if rec == nil {
		s.start(c, s.nextAttempt(c.Name, nil), s.o.backoffs[c.Name])
		return false
	}
	inSandbox := rec.SandboxID == s.o.sandbox.id
	if rec.State == cruntime.Running {
		p, then := s.o.probes[rec.ID], ""
		if always || restartsKilled(&s.d.pod.Spec, &c) {
			then = ", will be restarted"
		}
		switch {
		case !s.o.stops[rec.ID].IsZero():
		case !inSandbox:
			s.stop(rec, c, nil, fmt.Sprintf("Container %s belongs to an earlier sandbox, will be restarted", c.Name))
		case p.failed == "Startup":
			s.stop(rec, c, c.StartupProbe, fmt.Sprintf("Container %s failed startup probe%s", c.Name, then))
		case p.failed == "Liveness":
			s.stop(rec, c, c.LivenessProbe, fmt.Sprintf("Container %s failed liveness probe%s", c.Name, then))
		case rec.Hash != podspec.Hash(c):
			s.stop(rec, c, nil, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name))
		}
		return inSandbox
	}
	if rec.State == cruntime.Created && inSandbox { // killed between create and start: the same attempt again
		s.start(c, rec.Attempt, s.o.backoffs[c.Name])
		return false
	}
	if !always && !restarts(&s.d.pod.Spec, &c, endCode(rec), !rec.Lost) {
		return false
	}
	b := s.o.backoffs[c.Name]
	if rec.Hash != podspec.Hash(c) { // what failed is not what is wanted now
		b = backoff{}
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
	if old := kube.ContainerStatusNamed(&s.o.last, name); old != nil && old.ContainerID != "" {
		n = max(n, int(old.RestartCount)+1)
	}
	return n
}

func (s *stepper) stop(rec *cruntime.Container, c corev1.Container, p *corev1.Probe, why string) {
	grace := graceOf(s.d.pod)
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		grace = *p.TerminationGracePeriodSeconds
	}
	s.do(action{kind: actStop, container: c.Name, id: rec.ID, grace: kube.Seconds(grace), why: why})
}

// start starts a container as soon as its image is there and an earlier failure has cooled down.
func (s *stepper) start(c corev1.Container, attempt int, b backoff) {
	img := s.o.images[c.Name]
	if img.ref != c.Image {
		img = imageState{}
	}
	fail := s.o.starts[c.Name]
	switch {
	case s.now.Before(fail.retry):
		s.wait(c.Name, fail.reason, fail.message)
		s.at(fail.retry)
	case img.ready:
		if fail.reason != "" {
			s.wait(c.Name, fail.reason, fail.message)
		}
		s.do(action{kind: actStart, container: c.Name, attempt: attempt, backoff: b})
	case img.inFlight:
		s.out.state = max(s.out.state, Pulling)
		if img.fail.reason != "" {
			s.wait(c.Name, img.fail.reason, img.fail.message)
		}
	default:
		s.out.state = max(s.out.state, Pulling)
		if img.fail.reason != "" {
			s.wait(c.Name, img.fail.reason, img.fail.message)
		}
		if s.now.Before(img.fail.retry) {
			s.at(img.fail.retry)
			return
		}
		s.do(action{kind: actPull, container: c.Name, attempt: attempt})
	}
}

// dropOld deletes dead attempts but the last before the newest: that one still serves "logs --previous" and lastState.
// When the disk is short it goes as well.
func (s *stepper) dropOld() {
	for i := range s.o.containers {
		c := &s.o.containers[i]
		old, cur := !s.o.discard.IsZero() && c.FinishedAt.Before(s.o.discard), s.current[c.Name]
		if c.State != cruntime.Running && (c.Attempt < cur.Attempt-1 || old && c.Attempt < cur.Attempt) {
			s.do(action{kind: actRemove, container: c.Name, id: c.ID, attempt: c.Attempt})
		}
	}
}

// sidecars are the init containers that run beside the others.
func sidecars(pod *corev1.Pod) []corev1.Container {
	return slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(c corev1.Container) bool { return !kube.IsSidecar(&c) })
}

func graceOf(p *corev1.Pod) int64 { return int64Or(p.Spec.TerminationGracePeriodSeconds, 30) }

func int64Or(p *int64, d int64) int64 {
	if p == nil {
		return d
	}
	return *p
}

func timeOf(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }

package podrun

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/probe"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// probeJob is the probing of one running container.
type probeJob struct {
	cancel context.CancelFunc
}

// probe has each running container probed, and stops probing those that run no more.
func (w *worker) probe(ctx context.Context, pod *corev1.Pod, containers []cruntime.Container, state State) {
	running := map[string]bool{}
	for i := range containers {
		c := &containers[i]
		spec := kube.ContainerNamed(pod, c.Name)
		if c.State != cruntime.Running || spec == nil || state >= Stopping {
			continue
		}
		running[c.ID] = true
		if w.probes[c.ID] == nil && !w.settingUp(c.ID) {
			w.startProbes(ctx, pod, spec, c)
		}
	}
	for id, j := range w.probes {
		if !running[id] {
			j.cancel()
			delete(w.probes, id)
			w.mu.Lock()
			if state < Stopping {
				delete(w.mem.probes, id)
			}
			w.mu.Unlock()
		}
	}
}

// settingUp: the container's postStart hook is under way. It is neither started nor ready before that is done.
func (w *worker) settingUp(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mem.hooks[id]
}

func (w *worker) stopProbes() {
	for _, j := range w.probes {
		j.cancel()
	}
}

// startProbes begins with what is known: a container that an earlier life of the agent called ready stays so until a
// probe says otherwise.
func (w *worker) startProbes(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, c *cruntime.Container) {
	ctx, cancel := context.WithCancel(ctx)
	w.probes[c.ID] = &probeJob{cancel: cancel}
	first := probeState{started: spec.StartupProbe == nil, ready: spec.ReadinessProbe == nil}
	w.mu.Lock()
	if old := kube.ContainerStatusNamed(&w.mem.last, c.Name); old != nil && old.ContainerID == "containerd://"+c.ID && old.Started != nil {
		first.started = first.started || *old.Started
		first.ready = first.ready || old.Ready
	}
	w.mem.probes[c.ID] = first
	w.mu.Unlock()
	w.poke() // the step that led here has not seen this
	if spec.StartupProbe == nil && spec.ReadinessProbe == nil && spec.LivenessProbe == nil {
		return
	}
	id := c.ID
	w.job("podrun/probes", func() error { w.runProbes(ctx, pod, spec, id, first); return nil }, func(error) {})
}

// contained runs one kind of probe of a container until it is over or ctx ends; a panic in it is a failure of that probe,
// which is then begun anew a while later.
func (w *worker) contained(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, kind string, run func()) {
	for delay := backoffFirst; ctx.Err() == nil; delay = min(2*delay, backoffMax) {
		err := contain.Do(w.m.cfg.Log, "podrun/probe", w.uid+"/"+spec.Name+"/"+kind, func() error { run(); return nil })
		if err == nil {
			return
		}
		w.m.events.pod(pod, spec, corev1.EventTypeWarning, "Unhealthy", "%s probe errored and resulted in unknown state: %v", kind, err)
		w.pause(ctx, delay)
	}
}

func (w *worker) runProbes(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, id string, first probeState) {
	run := func(kind string, p *corev1.Probe, ok bool, report func(ok bool, output string) bool) {
		w.contained(ctx, pod, spec, kind, func() {
			probe.Run(ctx, p, w.probeTarget(spec, id), ok, report, func(output string) {
				w.m.events.pod(pod, spec, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", kind, output)
			})
		})
	}
	if p := spec.StartupProbe; p != nil && !first.started {
		up := false
		run("Startup", p, false, func(ok bool, output string) bool {
			up = ok
			w.setProbe(id, func(s *probeState) {
				s.started = ok
				if !ok {
					s.failed, s.output = "Startup", output
				}
			})
			return false
		})
		if !up {
			return
		}
	}
	var both sync.WaitGroup
	if p := spec.ReadinessProbe; p != nil {
		both.Go(func() {
			run("Readiness", p, first.ready, func(ok bool, _ string) bool {
				w.setProbe(id, func(s *probeState) { s.ready = ok })
				return true
			})
		})
	}
	if p := spec.LivenessProbe; p != nil {
		both.Go(func() {
			run("Liveness", p, true, func(ok bool, output string) bool {
				if !ok {
					w.setProbe(id, func(s *probeState) { s.failed, s.output = "Liveness", output })
				}
				return ok
			})
		})
	}
	both.Wait()
}

// setProbe changes what is known of a container and nudges the worker when that is news.
func (w *worker) setProbe(id string, change func(*probeState)) {
	w.mu.Lock()
	old := w.mem.probes[id]
	s := old
	change(&s)
	w.mem.probes[id] = s
	w.mu.Unlock()
	if s != old {
		w.poke()
	}
}

func (w *worker) probeTarget(spec *corev1.Container, id string) probe.Target {
	return probe.Target{
		Host: func() string {
			if _, ips := w.address(); len(ips) > 0 {
				return ips[0]
			}
			return ""
		},
		Port: func(p intstr.IntOrString) (int, error) { return portOf(p, spec) },
		Exec: func(ctx context.Context, command []string) (int, string, error) {
			out := &limited{n: 10 << 10}
			code, err := w.m.cfg.Runtime.Exec(ctx, id, cruntime.ExecSpec{Command: command, Stdout: out, Stderr: out})
			return code, out.String(), err
		},
	}
}

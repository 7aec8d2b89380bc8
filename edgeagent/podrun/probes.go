package podrun

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/probe"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// probe has each running container probed, and stops probing those that run no more.
func (w *worker) probe(ctx context.Context, pod *corev1.Pod, containers []cruntime.Container, state lifecycle.State) {
	running := map[string]bool{}
	for i := range containers {
		c := &containers[i]
		spec := kube.ContainerNamed(pod, c.Name)
		if c.State != cruntime.Running || spec == nil || state >= lifecycle.Stopping {
			continue
		}
		running[c.ID] = true
		// One whose postStart hook is under way is neither started nor ready.
		if w.probing[c.ID] == nil && !w.mem.Hooks[c.ID] {
			w.startProbes(ctx, pod, spec, c)
		}
	}
	for id, cancel := range w.probing {
		if !running[id] {
			cancel()
			delete(w.probing, id)
			if state < lifecycle.Stopping {
				delete(w.mem.Probes, id)
			}
		}
	}
}

// stopProbes ends all probes: the worker ends.
func (w *worker) stopProbes() {
	for _, cancel := range w.probing {
		cancel()
	}
}

// startProbes begins with what is known: a container that an earlier life of the agent called ready stays so until a
// probe says otherwise.
func (w *worker) startProbes(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, c *cruntime.Container) {
	ctx, cancel := context.WithCancel(ctx)
	w.probing[c.ID] = cancel
	first := lifecycle.Probe{Started: spec.StartupProbe == nil, Ready: spec.ReadinessProbe == nil}
	if old := kube.ContainerStatusNamed(&w.mem.Last, c.Name); old != nil && old.ContainerID == "containerd://"+c.ID && old.Started != nil {
		first.Started = first.Started || *old.Started
		first.Ready = first.Ready || old.Ready
	}
	w.mem.Probes[c.ID] = first
	w.inbox.poke() // the step that led here has not seen this
	if spec.StartupProbe == nil && spec.ReadinessProbe == nil && spec.LivenessProbe == nil {
		return
	}
	h, id := w.handle, c.ID
	h.jobs.Go(func() {
		contain.Go(h.m.cfg.Log, "podrun/probes", h.uid, func() { h.runProbes(ctx, pod, spec, id, first) })
	})
}

// probed is the opinion that a probe of a container has come to.
type probed struct {
	id     string
	kind   string // "Startup", "Readiness" or "Liveness"
	ok     bool
	output string // of the last answer
}

func (r probed) apply(_ context.Context, w *worker) {
	s, known := w.mem.Probes[r.id]
	if !known { // it runs no more
		return
	}
	switch r.kind {
	case "Readiness":
		s.Ready = r.ok
	case "Startup":
		s.Started = r.ok
	}
	if !r.ok && r.kind != "Readiness" {
		s.Failed, s.Output = r.kind, r.output
	}
	w.mem.Probes[r.id] = s
}

// contained runs one kind of probe of a container until it is over or ctx ends; a panic in it is a failure of that probe,
// which is then begun again a while later.
func (h *handle) contained(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, kind string, run func()) {
	for delay := lifecycle.BackoffFirst; ctx.Err() == nil; delay = min(2*delay, lifecycle.BackoffMax) {
		err := contain.Do(h.m.cfg.Log, "podrun/probe", h.uid+"/"+spec.Name+"/"+kind, func() error { run(); return nil })
		if err == nil {
			return
		}
		h.m.events.Record(pod, spec, corev1.EventTypeWarning, "Unhealthy", "%s probe errored and resulted in unknown state: %v", kind, err)
		pause(ctx, delay)
	}
}

// runProbes probes a container until ctx ends, or it is condemned: startup first, then the other two side by side.
func (h *handle) runProbes(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, id string, first lifecycle.Probe) {
	// run calls then with each opinion, until it returns false. What is no news does not reach the worker.
	run := func(kind string, p *corev1.Probe, ok, known bool, then func(ok bool) bool) {
		h.contained(ctx, pod, spec, kind, func() {
			probe.Run(ctx, p, h.probeTarget(spec, id), ok, func(ok bool, output string) bool {
				if ok != known || !ok && kind != "Readiness" {
					h.inbox.put(probed{id, kind, ok, output})
				}
				known = ok
				return then(ok)
			}, func(output string) {
				h.m.events.Record(pod, spec, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", kind, output)
			})
		})
	}
	if p := spec.StartupProbe; p != nil && !first.Started {
		up := false
		run("Startup", p, false, false, func(ok bool) bool { up = ok; return false })
		if !up {
			return
		}
	}
	var both sync.WaitGroup
	if p := spec.ReadinessProbe; p != nil {
		both.Go(func() { run("Readiness", p, first.Ready, first.Ready, func(bool) bool { return true }) })
	}
	if p := spec.LivenessProbe; p != nil {
		both.Go(func() { run("Liveness", p, true, true, func(ok bool) bool { return ok }) })
	}
	both.Wait()
}

// probeTarget is how a container is asked. The host is looked up each time: that of a pod on the node's network may change.
func (h *handle) probeTarget(spec *corev1.Container, id string) probe.Target {
	return probe.Target{
		Host: func() string {
			if _, ips := h.address(); len(ips) > 0 {
				return ips[0]
			}
			return ""
		},
		Port: func(p intstr.IntOrString) (int, error) { return portOf(p, spec) },
		Exec: func(ctx context.Context, command []string) (int, string, error) {
			out := &limited{n: 10 << 10}
			code, err := h.m.cfg.Runtime.Exec(ctx, id, cruntime.ExecSpec{Command: command, Stdout: out, Stderr: out})
			return code, out.String(), err
		},
	}
}

// portOf resolves a port by number or by the name that the container gives it.
func portOf(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
}

package podrun

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// start starts one attempt of a container; its image is there.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) {
	m := w.m
	c := kube.ContainerNamed(pod, a.Container)
	sb := w.mem.Sandbox
	delete(w.mem.Images, a.Container) // the next attempt asks again
	if c == nil || sb == nil {
		return
	}
	fail := func(reason string, err error) {
		if ctx.Err() != nil {
			return
		}
		delay := min(max(2*w.mem.Starts[c.Name].Delay, 10*time.Second), lifecycle.BackoffMax)
		w.mem.Starts[c.Name] = lifecycle.Failure{Reason: reason, Message: err.Error(), Retry: m.cfg.Now().Add(delay), Delay: delay}
		m.events.Record(pod, c, corev1.EventTypeWarning, "Failed", "Error: %v", err)
	}
	if err := w.mountImages(ctx, pod, c); err != nil {
		fail(reasonCreate, err)
		return
	}
	attempt := podspec.Attempt{Pod: pod, Container: c, Number: a.Attempt, Target: a.Target, Set: m.want.Load().set, Place: placeOf(sb), Volumes: m.cfg.Volumes, LogPath: w.logPath(c.Name, a.Attempt)}
	spec, err := atMost(w, ctx, stepLimit, "finding what container "+c.Name+" mounts", func(context.Context) (described, error) {
		return w.containerSpec(attempt)
	})
	if err != nil {
		fail(lifecycle.ReasonConfig, err)
		return
	}
	if len(spec.skipped) > 0 {
		m.events.Record(pod, c, corev1.EventTypeWarning, "InvalidEnvironmentVariableNames",
			"Keys %v from the EnvFrom sources were skipped since they are considered invalid environment variable names.", spec.skipped)
	}
	id, err := w.startInTurn(ctx, pod, c, spec.ContainerSpec)
	switch {
	case ctx.Err() != nil && id == "":
		return
	case errors.Is(err, cruntime.ErrConfig):
		fail(lifecycle.ReasonConfig, err)
		return
	case err != nil && id == "":
		fail(reasonCreate, err)
		return
	}
	delete(w.mem.Starts, c.Name)
	w.mem.Backoffs[c.Name] = a.Backoff
	m.events.Record(pod, c, corev1.EventTypeNormal, "Created", "Container created")
	if err != nil { // the runtime shows it as ended with StartError
		m.events.Record(pod, c, corev1.EventTypeWarning, "Failed", "Error: %v", err)
		return
	}
	m.events.Record(pod, c, corev1.EventTypeNormal, "Started", "Container started")
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		w.postStart(ctx, pod, c, id)
	}
}

// mountImages mounts the images that a container has as volumes. When that fails they are asked for again before the next try: an image may have
// been removed by hand.
func (w *worker) mountImages(ctx context.Context, pod *corev1.Pod, c *corev1.Container) error {
	list := kube.ImageVolumes(pod, c)
	if len(list) == 0 {
		return nil
	}
	err := w.try(ctx, startLimit, "mounting images", func(ctx context.Context) error { return w.m.cfg.Volumes.MountImages(ctx, pod, c) })
	if err != nil {
		for _, v := range list {
			delete(w.mem.Images, lifecycle.VolumeImage(v.Name))
		}
	}
	return err
}

// placeOf returns a sandbox as specs name it.
func placeOf(sb *lifecycle.Sandbox) podspec.Place {
	return podspec.Place{SandboxID: sb.ID, Netns: sb.Netns, IPs: sb.IPs}
}

// containerSpec describes one attempt of a container in full.
func (h *handle) containerSpec(a podspec.Attempt) (described, error) {
	spec, skipped, err := h.m.node().Container(a)
	if err != nil {
		return described{}, err
	}
	more, err := h.fileMounts(a.Pod, a.Container, a.Number, spec.Security.ReadOnlyRoot, spec.Mounts)
	spec.Mounts = append(spec.Mounts, more...)
	return described{spec, skipped}, err
}

// described is a container's spec, and the keys that are no names of variables.
type described struct {
	cruntime.ContainerSpec
	skipped []string
}

// startLimit is how long one start of a container may take: the snapshot of a large image on a slow card, or under load,
// takes its time; what does not answer for so long will not.
const startLimit = 4 * time.Minute

// startInTurn starts a container when it is its turn. One that takes too long gives its slot back and is abandoned later.
func (w *worker) startInTurn(ctx context.Context, pod *corev1.Pod, c *corev1.Container, spec cruntime.ContainerSpec) (id string, err error) {
	m := w.m
	late := func() {
		m.events.Record(pod, c, corev1.EventTypeWarning, "SlowStart", "Container %s has been starting for %s; others are started meanwhile", c.Name, startTurn)
	}
	err = m.starts.Run(ctx, late, func(ctx context.Context) (err error) {
		id, err = atMost(w, ctx, startLimit, "starting container "+c.Name, func(ctx context.Context) (string, error) { return m.cfg.Runtime.Start(ctx, spec) })
		return err
	})
	return id, err
}

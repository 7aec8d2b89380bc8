package podrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

const (
	reasonConfig = "CreateContainerConfigError"
	reasonKill   = "FailedKillPod"
	reasonCrash  = "CrashLoopBackOff"
	reasonCreate = "CreateContainerError"
)

func uidOf(s string) types.UID { return types.UID(s) }

// act runs one action. What takes long runs beside the worker, which is nudged at its end; a failure is remembered for
// the next step. false: nothing has changed, so another step at once would decide the same.
func (w *worker) act(ctx context.Context, d target, o observed, a action) bool {
	switch a.kind {
	case actSandbox:
		w.sandbox(ctx, d.pod)
	case actVolumes:
		w.volumes(ctx, d.pod, o)
	case actPull:
		w.pull(ctx, d.pod, a)
	case actStart:
		w.start(ctx, d.pod, a)
	case actStop:
		w.stop(ctx, d.pod, a)
	case actRemove:
		err := w.try(ctx, stepLimit, "removing container "+a.id, func(ctx context.Context) error { return w.m.cfg.Runtime.Remove(ctx, a.id) })
		if err != nil {
			w.m.cfg.Log.Warn("old container not removed", "container", a.id, "error", err)
			return false
		}
		_ = os.Remove(w.messagePath(a.container, a.attempt))
		removeLogs(w.logPath(a.container, a.attempt))
		if a.backoff != (backoff{}) {
			w.mu.Lock()
			w.mem.backoffs[a.container] = a.backoff
			w.mu.Unlock()
		}
	case actRelease:
		return w.release(ctx, d, o, false)
	case actPurge:
		return w.release(ctx, d, o, true)
	}
	return true
}

// block remembers why the pod does not get on, and tries again a little later each time.
func (w *worker) block(f failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delay := time.Second
	if w.mem.blocked.reason == f.reason && (w.mem.blocked.message == f.message || f.reason == reasonKill) {
		delay = min(max(w.mem.blocked.delay*2, time.Second), 30*time.Second)
	}
	f.delay = delay
	f.retry = w.m.cfg.Now().Add(delay)
	w.mem.blocked = f
}

// errNoUserNamespaces: without the right user IDs on its image and volumes a pod would not be the pod that was asked for.
var errNoUserNamespaces = errors.New("can't set `spec.hostUsers: false`, runtime does not support user namespaces: leave it out, or true")

func (w *worker) sandbox(ctx context.Context, pod *corev1.Pod) {
	t := w.m
	fail := func(err error) {
		t.events.pod(pod, nil, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
		w.block(failure{reason: "ContainerCreating", message: err.Error()})
	}
	if _, err := podspec.Names(pod, t.cfg.DNS.Domain); err != nil {
		fail(err)
		return
	}
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		fail(errNoUserNamespaces)
		return
	}
	sb := &sandboxState{}
	if pod.Spec.HostNetwork {
		sb.ips = t.cfg.NodeIPs()
	} else {
		at, err := atMost(w, ctx, stepLimit, "attaching the pod to the network", func(ctx context.Context) (Attachment, error) {
			return t.cfg.Network.Attach(ctx, w.uid)
		})
		if err != nil {
			fail(err)
			return
		}
		sb.netns, sb.ips = at.Netns, at.IPs
	}
	node := t.node()
	var err error
	if node.Hosts, node.ResolvConf, err = machineFiles(); err != nil {
		fail(err)
		return
	}
	spec, texts, err := node.Sandbox(pod, sb.place())
	if err != nil {
		fail(err)
		return
	}
	made, err := atMost(w, ctx, stepLimit, "the sandbox", func(ctx context.Context) (cruntime.Sandbox, error) { return t.cfg.Runtime.Sandbox(ctx, spec) })
	if err != nil {
		fail(err)
		return
	}
	sb.id = made.ID
	if err := w.writeFiles(texts); err != nil {
		fail(err)
		return
	}
	w.mu.Lock()
	w.mem.sandbox, w.mem.blocked = sb, failure{}
	w.mu.Unlock()
	t.portsChanged()
}

func (w *worker) volumes(ctx context.Context, pod *corev1.Pod, o observed) {
	set, _ := w.m.current()
	err := w.try(ctx, stepLimit, "making the volumes", func(ctx context.Context) error { return w.m.cfg.Volumes.Sync(ctx, pod, set) })
	begun := slices.ContainsFunc(o.containers, func(c cruntime.Container) bool { return c.State == cruntime.Running })
	w.mu.Lock()
	if err == nil || begun { // a running pod keeps what it has when its ConfigMap is deleted
		w.mem.volumes = true
		if err == nil && w.mem.sandbox != nil {
			w.mem.blocked = failure{}
		}
	}
	w.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		w.m.events.pod(pod, nil, corev1.EventTypeWarning, "FailedMount", "%v", err)
		if !begun {
			w.block(failure{reason: "ContainerCreating", message: err.Error()})
		}
	}
}

// start starts one attempt of a container; its image is there.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, a action) {
	t := w.m
	c := kube.ContainerNamed(pod, a.container)
	set, _ := t.current()
	w.mu.Lock()
	sb := w.mem.sandbox
	delete(w.mem.images, a.container) // the next attempt asks again
	w.mu.Unlock()
	if c == nil || sb == nil {
		return
	}
	fail := func(reason string, err error) {
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		delay := min(max(2*w.mem.starts[c.Name].delay, 10*time.Second), backoffMax)
		w.mem.starts[c.Name] = failure{reason: reason, message: err.Error(), retry: t.cfg.Now().Add(delay), delay: delay}
		w.mu.Unlock()
		t.events.pod(pod, c, corev1.EventTypeWarning, "Failed", "Error: %v", err)
	}
	attempt := podspec.Attempt{Pod: pod, Container: c, Number: a.attempt, Set: set, Place: sb.place(), Volumes: t.cfg.Volumes, LogPath: w.logPath(c.Name, a.attempt)}
	spec, err := atMost(w, ctx, stepLimit, "finding what container "+c.Name+" mounts", func(context.Context) (described, error) {
		return w.containerSpec(attempt)
	})
	if err != nil {
		fail(reasonConfig, err)
		return
	}
	if len(spec.skipped) > 0 {
		t.events.pod(pod, c, corev1.EventTypeWarning, "InvalidEnvironmentVariableNames",
			"Keys %v from the EnvFrom sources were skipped since they are considered invalid environment variable names.", spec.skipped)
	}
	id, err := w.startInTurn(ctx, pod, c, spec.ContainerSpec)
	switch {
	case ctx.Err() != nil && id == "":
		return
	case errors.Is(err, cruntime.ErrConfig):
		fail(reasonConfig, err)
		return
	case err != nil && id == "":
		fail(reasonCreate, err)
		return
	}
	w.mu.Lock()
	delete(w.mem.starts, c.Name)
	w.mem.backoffs[c.Name] = a.backoff
	w.mu.Unlock()
	t.events.pod(pod, c, corev1.EventTypeNormal, "Created", "Container created")
	if err != nil { // the runtime shows it as ended with StartError
		t.events.pod(pod, c, corev1.EventTypeWarning, "Failed", "Error: %v", err)
		return
	}
	t.events.pod(pod, c, corev1.EventTypeNormal, "Started", "Container started")
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		w.postStart(ctx, pod, c, id)
	}
}

// containerSpec describes one attempt of a container in full.
func (w *worker) containerSpec(a podspec.Attempt) (described, error) {
	spec, skipped, err := w.m.node().Container(a)
	if err != nil {
		return described{}, err
	}
	more, err := w.fileMounts(a.Pod, a.Container, a.Number, spec.Security.ReadOnlyRoot, spec.Mounts)
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
	t := w.m
	late := func() {
		t.events.pod(pod, c, corev1.EventTypeWarning, "SlowStart", "Container %s has been starting for %s; others are started meanwhile", c.Name, startTurn)
	}
	err = t.starts.Run(ctx, late, func(ctx context.Context) (err error) {
		id, err = atMost(w, ctx, startLimit, "starting container "+c.Name, func(ctx context.Context) (string, error) { return t.cfg.Runtime.Start(ctx, spec) })
		return err
	})
	return id, err
}

// release gives back what the pod holds on the node. all: its containers, logs and directory too.
func (w *worker) release(ctx context.Context, d target, o observed, all bool) bool {
	t := w.m
	err := func() error {
		if all {
			for _, c := range o.containers {
				err := w.try(ctx, stepLimit, "removing container "+c.Name, func(ctx context.Context) error { return t.cfg.Runtime.Remove(ctx, c.ID) })
				if err != nil && !errors.Is(err, cruntime.ErrNotFound) {
					return fmt.Errorf("container %s: %w", c.Name, err)
				}
			}
		}
		for _, part := range []struct {
			what string
			undo func(context.Context, string) error
		}{{"removing the sandbox", t.cfg.Runtime.RemoveSandbox}, {"taking the pod off the network", t.cfg.Network.Detach}, {"removing the volumes", t.cfg.Volumes.Remove}} {
			if err := w.try(ctx, stepLimit, part.what, func(ctx context.Context) error { return part.undo(ctx, w.uid) }); err != nil {
				return err
			}
		}
		if all {
			return w.try(ctx, stepLimit, "removing the pod's directory", func(context.Context) error { return os.RemoveAll(w.dir) })
		}
		return nil
	}()
	if err != nil {
		if ctx.Err() == nil {
			t.cfg.Log.Warn("pod not cleaned up yet", "pod", d.pod.Name, "namespace", d.pod.Namespace, "error", err)
			t.events.pod(d.pod, nil, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
			w.block(failure{reason: reasonKill, message: err.Error()})
		}
		return false
	}
	w.mu.Lock()
	w.mem.sandbox, w.mem.volumes, w.mem.released, w.mem.removed = nil, false, true, all
	w.mu.Unlock()
	t.portsChanged()
	return true
}

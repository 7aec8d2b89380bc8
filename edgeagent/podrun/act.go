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
)

// Reasons of waiting containers and of events; kubelet's.
const (
	reasonConfig = "CreateContainerConfigError"
	reasonKill   = "FailedKillPod"
	reasonCrash  = "CrashLoopBackOff"
	reasonCreate = "CreateContainerError"
)

func uidOf(s string) types.UID { return types.UID(s) }

// act runs one action. What may take long is bounded, or done by a job beside the worker; a failure is remembered for the next
// step. false: nothing has changed, so another step at once would decide the same.
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
			w.mem.backoffs[a.container] = a.backoff
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

// sandbox makes sure of the pod's network, namespaces, cgroup and shared files.
func (w *worker) sandbox(ctx context.Context, pod *corev1.Pod) {
	sb, err := w.makeSandbox(ctx, pod)
	if err != nil {
		w.m.events.pod(pod, nil, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
		w.block(failure{reason: "ContainerCreating", message: err.Error()})
		return
	}
	w.mem.sandbox, w.mem.blocked = sb, failure{}
	w.show()
	w.m.portsChanged()
}

func (w *worker) makeSandbox(ctx context.Context, pod *corev1.Pod) (*sandboxState, error) {
	m, sb := w.m, &sandboxState{}
	if _, err := podspec.Names(pod, m.cfg.DNS.Domain); err != nil {
		return nil, err
	}
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		return nil, errNoUserNamespaces
	}
	if pod.Spec.HostNetwork {
		sb.ips = m.cfg.NodeIPs()
	} else {
		at, err := atMost(w, ctx, stepLimit, "attaching the pod to the network", func(ctx context.Context) (Attachment, error) {
			return m.cfg.Network.Attach(ctx, w.uid)
		})
		if err != nil {
			return nil, err
		}
		sb.netns, sb.ips = at.Netns, at.IPs
	}
	node := m.node()
	var err error
	if node.Hosts, node.ResolvConf, err = machineFiles(); err != nil {
		return nil, err
	}
	spec, texts, err := node.Sandbox(pod, sb.place())
	if err != nil {
		return nil, err
	}
	made, err := atMost(w, ctx, stepLimit, "the sandbox", func(ctx context.Context) (cruntime.Sandbox, error) { return m.cfg.Runtime.Sandbox(ctx, spec) })
	if err != nil {
		return nil, err
	}
	sb.id = made.ID
	return sb, w.writeFiles(texts)
}

// volumes makes sure of the pod's volumes.
func (w *worker) volumes(ctx context.Context, pod *corev1.Pod, o observed) {
	set := w.m.want.Load().set
	err := w.try(ctx, stepLimit, "making the volumes", func(ctx context.Context) error { return w.m.cfg.Volumes.Sync(ctx, pod, set) })
	begun := slices.ContainsFunc(o.containers, func(c cruntime.Container) bool { return c.State == cruntime.Running })
	if err == nil || begun { // a running pod keeps what it has when its ConfigMap is deleted
		w.mem.volumes = true
		if err == nil && w.mem.sandbox != nil {
			w.mem.blocked = failure{}
		}
	}
	if err != nil && ctx.Err() == nil {
		w.m.events.pod(pod, nil, corev1.EventTypeWarning, "FailedMount", "%v", err)
		if !begun {
			w.block(failure{reason: "ContainerCreating", message: err.Error()})
		}
	}
}

// release gives back what the pod holds on the node. all: its containers, logs and directory too.
func (w *worker) release(ctx context.Context, d target, o observed, all bool) bool {
	m := w.m
	err := func() error {
		if all {
			for _, c := range o.containers {
				err := w.try(ctx, stepLimit, "removing container "+c.Name, func(ctx context.Context) error { return m.cfg.Runtime.Remove(ctx, c.ID) })
				if err != nil && !errors.Is(err, cruntime.ErrNotFound) {
					return fmt.Errorf("container %s: %w", c.Name, err)
				}
			}
		}
		for _, part := range []struct {
			what string
			undo func(context.Context, string) error
		}{{"removing the sandbox", m.cfg.Runtime.RemoveSandbox}, {"taking the pod off the network", m.cfg.Network.Detach}, {"removing the volumes", m.cfg.Volumes.Remove}} {
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
			m.cfg.Log.Warn("pod not cleaned up yet", "pod", d.pod.Name, "namespace", d.pod.Namespace, "error", err)
			m.events.pod(d.pod, nil, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
			w.block(failure{reason: reasonKill, message: err.Error()})
		}
		return false
	}
	w.mem.sandbox, w.mem.volumes, w.mem.released, w.mem.removed = nil, false, true, all
	w.show()
	m.portsChanged()
	return true
}

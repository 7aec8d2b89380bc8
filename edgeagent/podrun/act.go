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
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// reasonCreate is that of a container which the runtime could not start.
const reasonCreate = "CreateContainerError"

func uidOf(s string) types.UID { return types.UID(s) }

// act runs one action. What may take long is bounded, or done by a job beside the worker; a failure is remembered for the next
// step. false: nothing has changed, so another step at once would decide the same.
func (w *worker) act(ctx context.Context, d lifecycle.Target, o lifecycle.Observed, a lifecycle.Action) bool {
	switch a.Kind {
	case lifecycle.MakeSandbox:
		w.sandbox(ctx, d.Pod, a.Bounds)
	case lifecycle.MakeVolumes:
		w.volumes(ctx, d.Pod, o)
	case lifecycle.PullImage:
		w.pull(ctx, d.Pod, a)
	case lifecycle.StartContainer:
		w.start(ctx, d.Pod, a)
	case lifecycle.StopContainer:
		w.stop(ctx, d.Pod, a)
	case lifecycle.RemoveContainer:
		err := w.try(ctx, stepLimit, "removing container "+a.ID, func(ctx context.Context) error { return w.m.cfg.Runtime.Remove(ctx, a.ID) })
		if err != nil {
			w.m.cfg.Log.Warn("old container not removed", "container", a.ID, "error", err)
			return false
		}
		_ = os.Remove(w.messagePath(a.Container, a.Attempt))
		removeLogs(w.logPath(a.Container, a.Attempt))
		if a.Backoff != (lifecycle.Backoff{}) {
			w.mem.Backoffs[a.Container] = a.Backoff
		}
	case lifecycle.ResizePod:
		w.resizePod(ctx, d.Pod, o, a)
	case lifecycle.ReleasePod:
		return w.release(ctx, d, o, false)
	case lifecycle.PurgePod:
		return w.release(ctx, d, o, true)
	}
	return true
}

// block remembers why the pod does not get on, and tries again a little later each time.
func (w *worker) block(f lifecycle.Failure) {
	delay := time.Second
	if w.mem.Blocked.Reason == f.Reason && (w.mem.Blocked.Message == f.Message || f.Reason == lifecycle.ReasonKill) {
		delay = min(max(w.mem.Blocked.Delay*2, time.Second), 30*time.Second)
	}
	f.Delay = delay
	f.Retry = w.m.cfg.Now().Add(delay)
	w.mem.Blocked = f
}

// errNoUserNamespaces refuses a pod that could not have the right user IDs on its image and volumes.
var errNoUserNamespaces = errors.New("can't set `spec.hostUsers: false`, runtime does not support user namespaces: leave it out, or true")

// runtimeOf refuses a pod whose RuntimeClass names a handler that this node does not have. The texts are those of kubelet and
// containerd.
func runtimeOf(pod *corev1.Pod, set *desired.Set) error {
	if pod.Spec.RuntimeClassName == nil {
		return nil
	}
	name := *pod.Spec.RuntimeClassName
	class := set.RuntimeClass(name)
	if class == nil {
		return fmt.Errorf("runtimeclass.node.k8s.io %q not found", name)
	}
	if class.Handler != kube.RuntimeHandler {
		return fmt.Errorf("failed to get sandbox runtime: no runtime for %q is configured", class.Handler)
	}
	return nil
}

// sandbox makes sure of the pod's network, namespaces, cgroup and shared files.
func (w *worker) sandbox(ctx context.Context, pod *corev1.Pod, bounds lifecycle.Bounds) {
	sb, err := w.makeSandbox(ctx, pod, bounds)
	if err != nil {
		w.m.events.Record(pod, nil, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
		w.block(lifecycle.Failure{Reason: "ContainerCreating", Message: err.Error()})
		return
	}
	w.mem.Sandbox, w.mem.Resize.Bounds, w.mem.Blocked = sb, bounds, lifecycle.Failure{}
	w.show()
	w.m.portsChanged()
}

// makeSandbox does what sandbox is for. Each part is idempotent: after a failure all of it is done again.
func (w *worker) makeSandbox(ctx context.Context, pod *corev1.Pod, bounds lifecycle.Bounds) (*lifecycle.Sandbox, error) {
	m, sb := w.m, &lifecycle.Sandbox{}
	if _, err := podspec.Names(pod, m.cfg.DNS.Domain); err != nil {
		return nil, err
	}
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		return nil, errNoUserNamespaces
	}
	if err := runtimeOf(pod, m.want.Load().set); err != nil {
		return nil, err
	}
	if pod.Spec.HostNetwork {
		sb.IPs = m.cfg.NodeIPs()
	} else {
		at, err := atMost(w, ctx, stepLimit, "attaching the pod to the network", func(ctx context.Context) (Attachment, error) {
			return m.cfg.Network.Attach(ctx, w.uid)
		})
		if err != nil {
			return nil, err
		}
		sb.Netns, sb.IPs = at.Netns, at.IPs
	}
	node := m.node()
	var err error
	if node.Hosts, node.ResolvConf, err = machineFiles(); err != nil {
		return nil, err
	}
	spec, texts, err := node.Sandbox(pod, placeOf(sb))
	if err != nil {
		return nil, err
	}
	spec.Raise = !bounds.Settled
	made, err := atMost(w, ctx, stepLimit, "the sandbox", func(ctx context.Context) (cruntime.Sandbox, error) { return m.cfg.Runtime.Sandbox(ctx, spec) })
	if err != nil {
		return nil, err
	}
	sb.ID = made.ID
	return sb, w.writeFiles(texts)
}

// volumes makes sure of the pod's volumes.
func (w *worker) volumes(ctx context.Context, pod *corev1.Pod, o lifecycle.Observed) {
	set := w.m.want.Load().set
	err := w.try(ctx, stepLimit, "making the volumes", func(ctx context.Context) error { return w.m.cfg.Volumes.Sync(ctx, pod, set) })
	begun := slices.ContainsFunc(o.Containers, func(c cruntime.Container) bool { return c.State == cruntime.Running })
	if err == nil || begun { // a running pod keeps what it has when its ConfigMap is deleted
		w.mem.Volumes = true
		if err == nil && w.mem.Sandbox != nil {
			w.mem.Blocked = lifecycle.Failure{}
		}
	}
	if err != nil && ctx.Err() == nil {
		w.m.events.Record(pod, nil, corev1.EventTypeWarning, "FailedMount", "%v", err)
		if !begun {
			w.block(lifecycle.Failure{Reason: "ContainerCreating", Message: err.Error()})
		}
	}
}

// release gives back what the pod holds on the node. all: its containers, logs and directory too.
func (w *worker) release(ctx context.Context, d lifecycle.Target, o lifecycle.Observed, all bool) bool {
	m := w.m
	err := func() error {
		if all {
			for _, c := range o.Containers {
				err := w.try(ctx, stepLimit, "removing container "+c.Name, func(ctx context.Context) error { return m.cfg.Runtime.Remove(ctx, c.ID) })
				if err != nil && !errors.Is(err, cruntime.ErrNotFound) {
					return fmt.Errorf("container %s: %w", c.Name, err)
				}
			}
		}
		for _, part := range []struct {
			what string
			undo func(context.Context, string) error
		}{{"removing the sandbox", m.cfg.Runtime.RemoveSandbox}, {"taking the pod off the network", m.cfg.Network.Detach}, {"removing the volumes", func(ctx context.Context, _ string) error { return m.cfg.Volumes.Remove(ctx, d.Pod) }}} {
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
			m.cfg.Log.Warn("pod not cleaned up yet", "pod", d.Pod.Name, "namespace", d.Pod.Namespace, "error", err)
			m.events.Record(d.Pod, nil, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
			w.block(lifecycle.Failure{Reason: lifecycle.ReasonKill, Message: err.Error()})
		}
		return false
	}
	w.mem.Sandbox, w.mem.Volumes, w.mem.Released, w.mem.Removed = nil, false, true, all
	w.show()
	m.portsChanged()
	return true
}

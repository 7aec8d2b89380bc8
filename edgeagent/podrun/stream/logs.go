package stream

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// logs sends a container's log as PodLogOptions want it.
func (v *Server) logs(ctx context.Context, pod Pod, name string, raw []byte, s wire.Stream) error {
	var opt corev1.PodLogOptions
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &opt); err != nil {
			return badRequest("log options: %v", err)
		}
	}
	if opt.Container != "" {
		name = opt.Container
	}
	if err := pod.check(name); err != nil {
		return err
	}
	c, err := v.newest(ctx, pod, name, opt.Previous)
	switch {
	case err != nil:
		return err
	case c == nil && opt.Previous:
		return badRequest("previous terminated container %q in pod %q not found", name, pod.name())
	case c == nil || c.State == cruntime.Created || v.cfg.Logs == nil:
		return badRequest("container %q in pod %q is waiting to start: %s", name, pod.name(), pod.waitingReason(name))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go receive(ctx, cancel, s, nil, nil) // sees the reader go
	o := podlog.Options{Follow: opt.Follow && c.State == cruntime.Running, Tail: -1, Timestamps: opt.Timestamps}
	if opt.TailLines != nil {
		o.Tail = *opt.TailLines
	}
	if opt.LimitBytes != nil {
		o.Limit = *opt.LimitBytes
	}
	switch {
	case opt.SinceTime != nil:
		o.Since = opt.SinceTime.Time
	case opt.SinceSeconds != nil:
		o.Since = v.cfg.Now().Add(-kube.Seconds(*opt.SinceSeconds))
	}
	if opt.Stream != nil {
		switch *opt.Stream {
		case corev1.LogStreamStdout:
			o.Stream = "stdout"
		case corev1.LogStreamStderr:
			o.Stream = "stderr"
		}
	}
	return v.cfg.Logs.Read(ctx, c.LogPath, o, sender{ctx, s, wire.ChannelStdout})
}

// waitingReason returns why a container does not run yet.
func (p Pod) waitingReason(name string) string {
	if st := kube.ContainerStatusNamed(p.Status, name); st != nil && st.State.Waiting != nil {
		return st.State.Waiting.Reason
	}
	return "ContainerCreating"
}

// Package stream serves what users open to a pod: exec, attach, logs, port-forward and connections to its address. A stream is one wire.Stream from the hub;
// its end carries the exit code, or the reason of the API for which it could not be served.
package stream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Runtime is what streams need of the container runtime; cruntime.Runtime says what its methods do.
type Runtime interface {
	Containers(ctx context.Context, podUID string) ([]cruntime.Container, error)
	Exec(ctx context.Context, id string, spec cruntime.ExecSpec) (exitCode int, err error)
}

// Attacher is a Runtime whose containers can be spoken to; without it, attach is refused.
type Attacher interface {
	// Stdin opens the way into a container that was started with stdin.
	Stdin(ctx context.Context, c cruntime.Container) (io.WriteCloser, error)
	// Resize sets the size of a container's terminal.
	Resize(ctx context.Context, id string, s cruntime.Size) error
}

// Dialer connects to a port inside a network namespace, "" is the node's own: at the address host, or on loopback without one.
type Dialer func(ctx context.Context, netns, host string, port int) (net.Conn, error)

// Config is what a Server needs.
type Config struct {
	Runtime Runtime
	// Pod returns what is known of a pod at the moment; false: it is not on this node.
	Pod  func(uid string) (Pod, bool)
	Logs *podlog.Pump // nil: attach and logs are refused
	Dial Dialer
	Now  func() time.Time
	Log  *slog.Logger
}

// Pod is what a stream has to know of its pod. It is a value: a stream sees the pod as it was when the stream began.
type Pod struct {
	UID    string
	Object *corev1.Pod       // nil: only the UID is known
	Status *corev1.PodStatus // the last one; never nil
	// Place is where its network is; nil: it has no sandbox.
	Place *Place
}

// Place is where a pod is in the network.
type Place struct {
	Netns string   // path; "": the node's own
	IPs   []string // the pod's own, the main one first; those of the node when it shares its network
}

// name is what users call the pod.
func (p Pod) name() string {
	if p.Object != nil {
		return p.Object.Name
	}
	return p.UID
}

// container returns the name of the container that a request means: the pod's first unless it names one.
func (p Pod) container(name string) string {
	if name == "" && p.Object != nil && len(p.Object.Spec.Containers) > 0 {
		return p.Object.Spec.Containers[0].Name
	}
	return name
}

// check refuses a container that the pod does not have.
func (p Pod) check(name string) error {
	if p.Object != nil && kube.ContainerNamed(p.Object, name) == nil {
		return badRequest("container %s is not valid for pod %s", name, p.Object.Name)
	}
	return nil
}

// Server serves streams. Its methods may be called at any time.
type Server struct{ cfg Config }

// New makes a Server.
func New(cfg Config) *Server { return &Server{cfg} }

// Serve serves one stream to a pod and closes it.
func (v *Server) Serve(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var end wire.StreamEnd
	err := contain.Do(v.cfg.Log, "podrun/stream", req.PodUID, func() (err error) {
		end, err = v.serve(ctx, req, s)
		return err
	})
	if err != nil {
		end = refusal(err)
	}
	if err := s.Close(end); err != nil && ctx.Err() == nil {
		v.cfg.Log.Debug("stream not closed", "kind", req.Kind, "error", err)
	}
}

func (v *Server) serve(ctx context.Context, req wire.StreamRequest, s wire.Stream) (wire.StreamEnd, error) {
	pod, ok := v.cfg.Pod(req.PodUID)
	if !ok {
		return wire.StreamEnd{}, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("pod %s/%s is not on this node", req.Namespace, req.Pod)}
	}
	switch req.Kind {
	case wire.StreamPortForward:
		return wire.StreamEnd{}, v.forward(ctx, pod, req, s)
	case wire.StreamConnect:
		return wire.StreamEnd{}, v.connect(ctx, pod, req, s)
	}
	name := pod.container(req.Container)
	if req.Kind == wire.StreamLogs {
		return wire.StreamEnd{}, v.logs(ctx, pod, name, req.Log, s)
	}
	c, err := v.runningContainer(ctx, pod, name)
	if err != nil {
		return wire.StreamEnd{}, err
	}
	switch req.Kind {
	case wire.StreamExec:
		return v.exec(ctx, c, req, s)
	case wire.StreamAttach:
		return v.attach(ctx, c, req, s)
	}
	return wire.StreamEnd{}, badRequest("this agent knows no stream of kind %q", req.Kind)
}

// newest returns the newest attempt of a container, or the one before it; nil when there is none.
func (v *Server) newest(ctx context.Context, pod Pod, name string, previous bool) (*cruntime.Container, error) {
	list, err := v.cfg.Runtime.Containers(ctx, pod.UID)
	if err != nil {
		return nil, err
	}
	var last, before *cruntime.Container
	for i := range list {
		if list[i].Name == name {
			before, last = last, &list[i]
		}
	}
	if previous {
		return before, nil
	}
	return last, nil
}

// runningContainer returns the newest attempt of a container, which must run.
func (v *Server) runningContainer(ctx context.Context, pod Pod, name string) (*cruntime.Container, error) {
	if err := pod.check(name); err != nil {
		return nil, err
	}
	c, err := v.newest(ctx, pod, name, false)
	if err != nil {
		return nil, err
	}
	if c == nil || c.State != cruntime.Running {
		return nil, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("container not found (%q)", name)}
	}
	return c, nil
}

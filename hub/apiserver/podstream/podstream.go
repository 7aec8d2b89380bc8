// Package podstream carries bytes between a client of the API and a pod on its node: logs, exec, attach and port-forward.
// Clients speak plain HTTP, WebSocket or SPDY; nodes speak the link's streams (internal/wire), which all look the same.
//
//	client ─ HTTP, WebSocket, SPDY ─► Server.Serve ─► log | terminal | forwarder ─► Streams ─ link ─► node
//
// The API server finds the pod and decides whether the user may have the stream; then one call of Serve is one request,
// from its first byte to its last. What a client can make this package hold is bounded: frames, messages, streams
// of one connection, and the time that a piece may take to be read. hub/apiserver's streams_test.go tests it from outside, with
// kubectl and client-go.
package podstream

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/wire"
)

// Patience is how long a client of a stream may take to read a piece. Clients pause: a pager, a terminal that is stopped, a
// browser that has buffered enough. TCP notices a client that has vanished long before, and a stream that is held counts
// against its own user.
const Patience = time.Hour

// Streams opens streams to pods on their nodes; hub/dispatch is one. The error is an *apierrors.StatusError: the node is
// dark (ServiceUnavailable, saying since when), unknown, or refused.
type Streams interface {
	OpenStream(ctx context.Context, node string, req wire.StreamRequest) (wire.Stream, error)
	// Absent returns the error that OpenStream would because the node is dark or unknown, or nil.
	Absent(node string) error
}

// Config is what a Server needs. All of it is required.
type Config struct {
	Streams Streams
	// Status turns an error into a Status as the API does, for clients whose connection is no longer HTTP.
	Status func(error) *metav1.Status
	Log    *slog.Logger
}

// Server serves streams of pods. It is safe for concurrent use.
type Server struct{ cfg Config }

// New returns a server.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Request is a client's request for a stream.
type Request struct {
	W http.ResponseWriter
	// R's context ends the stream: with the client, or when the hub stops. The client gets its cause, where it has one, as a
	// ServiceUnavailable.
	R           *http.Request
	Pod         *corev1.Pod // shared: read-only
	Subresource string      // log, exec, attach or portforward
	// Fail answers with the error's Status. It is called at most once, and only before anything else was answered.
	Fail func(error)
}

// Serve serves one request. It returns when the stream has ended.
func (s *Server) Serve(r Request) {
	x := &stream{Request: r, Config: s.cfg, ctx: r.R.Context(), query: r.R.URL.Query()}
	switch r.Subresource {
	case "log":
		x.log()
	case "exec":
		x.remoteCommand(wire.StreamExec)
	case "attach":
		x.remoteCommand(wire.StreamAttach)
	case "portforward":
		x.portForward()
	default:
		x.Fail(apierrors.NewInternalError(fmt.Errorf("pods/%s is declared as a stream but not served", r.Subresource)))
	}
}

// stream is one request being served. Except where noted, it is owned by the request's goroutine.
type stream struct {
	Request
	Config
	ctx   context.Context // of the stream; replaced before other goroutines see it
	query url.Values      // parsed once, because many functions read it
}

// key names the stream where a panic is contained.
func (x *stream) key() string { return x.Pod.Namespace + "/" + x.Pod.Name }

// containerOf returns the container of a request: the named one, or the only one.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var names, inits []string
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	if name != "" {
		for _, n := range append(names, inits...) {
			if n == name {
				return name, nil
			}
		}
		for _, c := range pod.Spec.EphemeralContainers {
			if c.Name == name {
				return name, nil
			}
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
	}
	msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " "))
	if len(inits) > 0 {
		msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
	}
	return "", apierrors.NewBadRequest(msg)
}

// open asks the pod's node for a stream.
func (x *stream) open(ctx context.Context, req wire.StreamRequest) (wire.Stream, error) {
	pod := x.Pod
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	req.PodUID, req.Namespace, req.Pod = string(pod.UID), pod.Namespace, pod.Name
	return x.Streams.OpenStream(ctx, pod.Spec.NodeName, req)
}

// boolQuery reads a flag of the query as upstream's conversion does: present and empty, or "true", or "1".
func (x *stream) boolQuery(key string) bool {
	v, ok := x.query[key]
	if !ok || len(v) == 0 {
		return false
	}
	switch strings.ToLower(v[0]) {
	case "false", "0":
		return false
	}
	return true
}

// upgradeOf returns the protocol that the client wants to change to: "websocket", "spdy" or "".
func (x *stream) upgradeOf() string {
	if !strings.Contains(strings.ToLower(x.R.Header.Get("Connection")), "upgrade") {
		return ""
	}
	switch up := strings.ToLower(x.R.Header.Get("Upgrade")); {
	case up == "websocket":
		return "websocket"
	case strings.HasPrefix(up, "spdy/3.1"):
		return "spdy"
	}
	return ""
}

// Package reach connects the hub with workloads. The hub is in no pod network, so a connection to a pod is a stream over the
// link to the pod's node, which dials there:
//
//	proxy, webhooks, aggregated APIs ─► Dialer ─► stream (hub/dispatch) ═ link ═ agent ─► the pod's own address
//	                                        └──► an endpoint that is no pod: dialed from the hub
//
// Endpoints come from the hub's cache. Loopback and link-local addresses are never dialed: the hub
// would lend its own place in the network to the writer of the endpoint. How many connections a node carries at a time is bounded; a
// caller waits for its turn.
package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/streamconn"
	"petrel.dev/petrel/internal/wire"
)

// dialTime bounds how long one endpoint may take to accept, its turn at a busy node included.
const dialTime = 30 * time.Second

// Nodes opens streams to nodes; hub/dispatch is one. Its errors are Statuses: ServiceUnavailable says since when a node is dark.
type Nodes interface {
	OpenStream(ctx context.Context, node string, req wire.StreamRequest) (wire.Stream, error)
}

// Objects are the hub's cache of objects.
type Objects interface {
	control.Reader
	// CatchUp returns nil once reads show all that was committed before the call; control.Feed says more.
	CatchUp(ctx context.Context) error
}

// Config is what a Dialer needs. All of it is required.
type Config struct {
	Objects Objects
	Nodes   Nodes
}

// Dialer connects to pods, Services and nodes. It is safe for concurrent use.
type Dialer struct {
	cfg   Config
	slots slots
}

// New returns a Dialer.
func New(cfg Config) *Dialer { return &Dialer{cfg: cfg} }

// DialPod connects to a port at a pod's own address. An error that is a Status is about the pod or its node (NotFound,
// ServiceUnavailable); any other says why the port does not accept. The connection does not end with ctx.
func (d *Dialer) DialPod(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
	d.catchUp(ctx)
	pod, ok := control.Get[*corev1.Pod](d.cfg.Objects, kube.Pod, namespace, name)
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	return d.dialPod(ctx, pod, port)
}

// cacheTime bounds how long a connection waits for the cache.
const cacheTime = 2 * time.Second

// catchUp waits until the cache shows what the caller may have seen: that a pod runs, or that a Service has endpoints. A cache that
// stands still is better than nothing.
func (d *Dialer) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	_ = d.cfg.Objects.CatchUp(ctx)
}

func (d *Dialer) dialPod(ctx context.Context, pod *corev1.Pod, port int32) (net.Conn, error) {
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("pod %s/%s is not on a node yet", pod.Namespace, pod.Name))
	}
	req := wire.StreamRequest{Kind: wire.StreamConnect, PodUID: string(pod.UID), Namespace: pod.Namespace, Pod: pod.Name, Port: port}
	name := net.JoinHostPort(pod.Namespace+"/"+pod.Name, strconv.Itoa(int(port)))
	return d.open(ctx, pod.Spec.NodeName, req, name)
}

// DialNode connects to what the agent itself of a node serves over HTTP; with a port other than 0, to that port at the node's own
// address. Errors are as those of DialPod.
func (d *Dialer) DialNode(ctx context.Context, node string, port int32) (net.Conn, error) {
	return d.open(ctx, node, wire.StreamRequest{Kind: wire.StreamNode, Port: port}, "node/"+node)
}

// open opens a stream and waits until the node has its end of the connection.
func (d *Dialer) open(ctx context.Context, node string, req wire.StreamRequest, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	release, err := d.slots.take(ctx, node, auth.UserFrom(ctx).Name)
	if err != nil {
		return nil, err
	}
	s, err := d.cfg.Nodes.OpenStream(ctx, node, req)
	if err != nil {
		release()
		return nil, err
	}
	if err := established(ctx, s); err != nil {
		_ = s.Close(wire.StreamEnd{})
		release()
		return nil, fmt.Errorf("dial %s on node %s: %w", name, node, err)
	}
	return &conn{Conn: streamconn.Dialed(s, name), release: release}, nil
}

// established waits for the node's sign that the connection stands.
func established(ctx context.Context, s wire.Stream) error {
	ch, data, err := s.Recv(ctx)
	var end *wire.StreamEnd
	switch {
	case errors.As(err, &end) && end.Message == "":
		return errors.New("the node ended the connection at once")
	case err != nil:
		return err
	case ch != wire.ChannelStderr || data != nil:
		return fmt.Errorf("the node sent %d bytes on channel %d before the connection stood", len(data), ch)
	}
	return nil
}

// conn is a connection that holds one of its node's slots until it is closed.
type conn struct {
	*streamconn.Conn
	release func() // may be called more than once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

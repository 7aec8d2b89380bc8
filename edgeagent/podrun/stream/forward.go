package stream

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/wire"
)

// dialTime is how long a port of a pod may take to accept.
const dialTime = 10 * time.Second

// forward joins a stream with a connection to a port on the pod's loopback.
func (v *Server) forward(ctx context.Context, pod Pod, req wire.StreamRequest, s wire.Stream) error {
	place, err := placeOf(pod, req)
	if err != nil {
		return err
	}
	conn, err := v.dial(ctx, place.Netns, "", req)
	if err != nil {
		return err
	}
	return join(ctx, conn, s)
}

// connect joins a stream with a connection to a port at the pod's own address. What listens on the pod's loopback only is as
// little in reach as from another pod.
func (v *Server) connect(ctx context.Context, pod Pod, req wire.StreamRequest, s wire.Stream) error {
	place, err := placeOf(pod, req)
	if err != nil {
		return err
	}
	if len(place.IPs) == 0 {
		return &streamError{metav1.StatusReasonServiceUnavailable, fmt.Sprintf("pod %s/%s has no address yet", req.Namespace, req.Pod)}
	}
	conn, err := v.dial(ctx, place.Netns, place.IPs[0], req)
	if err != nil {
		return err
	}
	if err := s.CloseSend(ctx, wire.ChannelStderr); err != nil { // the connection stands
		conn.Close()
		return err
	}
	return join(ctx, conn, s)
}

// placeOf returns where the pod of a request is in the network.
func placeOf(pod Pod, req wire.StreamRequest) (*Place, error) {
	if pod.Place == nil {
		return nil, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("pod %s/%s is not running", req.Namespace, req.Pod)}
	}
	return pod.Place, nil
}

// dial connects to the port of a request.
func (v *Server) dial(ctx context.Context, netns, host string, req wire.StreamRequest) (net.Conn, error) {
	if v.cfg.Dial == nil {
		return nil, badRequest("this node cannot connect to its pods")
	}
	ctx, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	conn, err := v.cfg.Dial(ctx, netns, host, int(req.Port))
	if err != nil {
		return nil, badRequest("port %s of pod %s: %v", strconv.Itoa(int(req.Port)), req.Pod, err)
	}
	return conn, nil
}

// join carries bytes between a stream and a connection, which it closes, until the pod's side is done.
func join(ctx context.Context, conn net.Conn, s wire.Stream) error {
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go receive(ctx, cancel, s, halfCloser{conn}, nil)
	buf := make([]byte, chunk)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := s.Send(ctx, wire.ChannelStdout, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the pod's side is done
		}
	}
}

// halfCloser closes only the sending side, where the connection can.
type halfCloser struct{ net.Conn }

func (c halfCloser) Close() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return c.Conn.Close()
}

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

// forward joins a stream with a connection to a port of the pod.
func (v *Server) forward(ctx context.Context, pod Pod, req wire.StreamRequest, s wire.Stream) error {
	if pod.Place == nil {
		return &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("pod %s/%s is not running", req.Namespace, req.Pod)}
	}
	dial, stop := context.WithTimeout(ctx, 10*time.Second)
	conn, err := v.cfg.Dial(dial, pod.Place.Netns, int(req.Port))
	stop()
	if err != nil {
		return badRequest("port %s of pod %s: %v", strconv.Itoa(int(req.Port)), req.Pod, err)
	}
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

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"petrel.dev/petrel/internal/wire"
)

const (
	forwardProtocol = "portforward.k8s.io"
	tunnelProtocol  = "SPDY/3.1+" + forwardProtocol
	// pairWait is how long the second stream of a pair may take.
	pairWait = 30 * time.Second
)

// portForward carries any number of TCP connections: for each the client opens two SPDY streams with one request id,
// "error" and "data". New clients put the same SPDY connection through a WebSocket, which more proxies let pass.
func (x *exchange) portForward(pod *corev1.Pod) {
	if pod.Spec.NodeName == "" {
		x.fail(apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name)))
		return
	}
	f := &forwarder{x: x, pod: pod, pairs: map[string]*streamPair{}}
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	f.ctx = ctx
	var conn httpstream.Connection
	switch x.upgradeOf() {
	case "websocket":
		ws, err := x.upgradeWebSocket([]string{tunnelProtocol})
		if err != nil {
			return // the client has been told
		}
		if conn, err = spdy.NewServerConnection(&tunnel{Conn: ws}, f.accept); err != nil {
			ws.Close()
			return
		}
	case "spdy":
		if _, err := httpstream.Handshake(x.r, x.w, []string{forwardProtocol}); err != nil {
			return
		}
		if conn = spdy.NewResponseUpgrader().UpgradeResponse(x.w, x.r, f.accept); conn == nil {
			return
		}
	default:
		x.fail(apierrors.NewBadRequest("Upgrade request required"))
		return
	}
	select {
	case <-conn.CloseChan():
	case <-ctx.Done():
	}
	cancel()
	_ = conn.Close()
	f.wg.Wait()
}

// forwarder pairs up streams and serves each pair.
type forwarder struct {
	x   *exchange
	pod *corev1.Pod
	ctx context.Context
	wg  sync.WaitGroup

	mu    sync.Mutex
	pairs map[string]*streamPair // half open ones, by request id
}

type streamPair struct {
	failed, data httpstream.Stream
	complete     chan struct{}
}

// accept is called for each new stream, by the connection's reader: it must not block.
func (f *forwarder) accept(s httpstream.Stream, replied <-chan struct{}) error {
	h := s.Headers()
	port, err := strconv.ParseUint(h.Get(corev1.PortHeader), 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q is not a port number", h.Get(corev1.PortHeader))
	}
	kind := h.Get(corev1.StreamType)
	if kind != corev1.StreamTypeError && kind != corev1.StreamTypeData {
		return fmt.Errorf("invalid stream type %q", kind)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return f.ctx.Err()
	}
	id := h.Get(corev1.PortForwardRequestIDHeader)
	p := f.pairs[id]
	if p == nil {
		p = &streamPair{complete: make(chan struct{})}
		f.pairs[id] = p
		f.wg.Go(func() { f.serve(id, p, int32(port), replied) })
	}
	if kind == corev1.StreamTypeError {
		if p.failed != nil {
			return errors.New("error stream already assigned")
		}
		p.failed = s
	} else {
		if p.data != nil {
			return errors.New("data stream already assigned")
		}
		p.data = s
	}
	if p.failed != nil && p.data != nil {
		close(p.complete)
		delete(f.pairs, id)
	}
	return nil
}

func (f *forwarder) serve(id string, p *streamPair, port int32, replied <-chan struct{}) {
	late := time.NewTimer(pairWait)
	defer late.Stop()
	select {
	case <-p.complete:
	case <-f.ctx.Done():
		return
	case <-late.C:
		f.mu.Lock()
		delete(f.pairs, id)
		half := p.failed
		if half == nil {
			half = p.data
		}
		f.mu.Unlock()
		if half != nil {
			_ = half.Reset()
		}
		return
	}
	<-replied
	defer p.failed.Close()
	if err := f.carry(p.data, port); err != nil {
		// Clients print this; a lost one needs no answer.
		_, _ = fmt.Fprintf(p.failed, "error forwarding port %d to pod %s, uid %s: %v", port, f.pod.Name, f.pod.UID, err)
		_ = p.data.Reset()
		return
	}
	_ = p.data.Close()
}

// carry joins one client connection with a port in the pod.
func (f *forwarder) carry(data httpstream.Stream, port int32) error {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	st, err := f.x.open(ctx, f.pod, wire.StreamRequest{Kind: wire.StreamPortForward, Port: port})
	if err != nil {
		return err
	}
	defer func() { _ = st.Close(wire.StreamEnd{}) }()
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := data.Read(buf)
			if n > 0 && st.Send(ctx, wire.ChannelStdin, buf[:n]) != nil {
				return
			}
			if err != nil {
				// The client has said all it will; the pod may still answer.
				_ = st.CloseSend(ctx, wire.ChannelStdin)
				return
			}
		}
	}()
	for {
		_, b, err := st.Recv(ctx)
		if err != nil {
			var end *wire.StreamEnd
			if errors.As(err, &end) && end.Reason == "" || ctx.Err() != nil {
				return nil
			}
			return err
		}
		if b == nil {
			_ = data.Close() // the pod has said all it will
			continue
		}
		if _, err := data.Write(b); err != nil {
			return nil // the client has gone
		}
	}
}

// tunnel is a WebSocket as a net.Conn: binary messages are a byte stream.
type tunnel struct {
	*websocket.Conn
	message io.Reader
	wmu     sync.Mutex
	once    sync.Once
}

var _ net.Conn = (*tunnel)(nil)

func (t *tunnel) Read(b []byte) (int, error) {
	for {
		if t.message == nil {
			kind, r, err := t.NextReader()
			if err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure) || strings.Contains(err.Error(), "use of closed") {
					return 0, io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("the client sent a text message through the tunnel")
			}
			t.message = r
		}
		n, err := t.message.Read(b)
		if err == io.EOF {
			t.message = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

func (t *tunnel) Write(b []byte) (int, error) {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if err := t.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (t *tunnel) Close() error {
	var err error
	t.once.Do(func() {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = t.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
		err = t.Conn.Close()
	})
	return err
}

func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

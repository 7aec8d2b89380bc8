package podstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/streaming/pkg/httpstream"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

const (
	forwardProtocol = "portforward.k8s.io"
	tunnelProtocol  = "SPDY/3.1+" + forwardProtocol
	// pairWait is how long the second stream of a pair may take.
	pairWait = 30 * time.Second
	// maxHalfPairs bounds the streams whose partner has not been opened yet.
	maxHalfPairs = 16
)

// portForward carries any number of TCP connections: for each the client opens two SPDY streams with one request id,
// "error" and "data". New clients put the same SPDY connection through a WebSocket, which more proxies let pass.
func (x *stream) portForward() {
	if x.Pod.Spec.NodeName == "" {
		x.Fail(apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", x.Pod.Name)))
		return
	}
	// Streams to the node are opened with the client's connections. A dark node is an ordinary HTTP error before that.
	if err := x.Streams.Absent(x.Pod.Spec.NodeName); err != nil {
		x.Fail(err)
		return
	}
	f := &forwarder{x: x, pairs: map[string]*streamPair{}}
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	f.ctx = ctx
	conn, err := f.connect()
	if err != nil {
		x.Log.Debug("upgrade failed", "path", x.R.URL.Path, "error", err) // the client has its answer
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

// connect takes over the client's connection. Streams that come at once wait until it has returned.
func (f *forwarder) connect() (httpstream.Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.x
	var err error
	switch x.upgradeOf() {
	case "websocket":
		var ws *websocket.Conn
		if ws, err = x.upgradeWebSocket([]string{tunnelProtocol}); err == nil {
			t := &tunnel{Conn: ws}
			f.conn, err = x.spdyServe(t, t, f.accept)
		}
	case "spdy":
		if _, err = httpstream.Handshake(x.R, x.W, []string{forwardProtocol}); err == nil {
			f.conn, err = x.spdyUpgrade(f.accept)
		}
	default:
		err = apierrors.NewBadRequest("Upgrade request required")
		x.Fail(err)
	}
	return f.conn, err
}

// forwarder joins streams to pairs and serves each pair.
type forwarder struct {
	x   *stream
	ctx context.Context
	wg  sync.WaitGroup

	mu    sync.Mutex
	conn  httpstream.Connection  // set once by connect, before the first stream is accepted
	pairs map[string]*streamPair // half open ones, by request id; at most maxHalfPairs; guarded by mu
	open  int                    // pairs that are being served, half open ones included; guarded by mu
}

type streamPair struct {
	failed, data httpstream.Stream
	complete     chan struct{}     // closed when both are there
	replied      []<-chan struct{} // each closes when the client has been answered; complete before complete is closed
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
		if len(f.pairs) >= maxHalfPairs || f.open >= maxStreams/2 {
			return fmt.Errorf("too many streams: %d pairs are open, %d of them half; %d and %d are allowed", f.open, len(f.pairs), maxStreams/2, maxHalfPairs)
		}
		p = &streamPair{complete: make(chan struct{})}
		f.pairs[id] = p
		f.open++
		f.wg.Go(func() {
			contain.Go(f.x.Log, "hub/apiserver/podstream/forward", f.x.key(), func() { f.serve(id, p, int32(port)) })
			f.ended(id, p)
		})
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
	p.replied = append(p.replied, replied)
	if p.failed != nil && p.data != nil {
		close(p.complete)
		delete(f.pairs, id)
	}
	return nil
}

// ended removes a pair: the library keeps every stream of a connection until it is removed.
func (f *forwarder) ended(id string, p *streamPair) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	if f.pairs[id] == p {
		delete(f.pairs, id)
	}
	for _, s := range []httpstream.Stream{p.failed, p.data} {
		if s != nil {
			_ = s.Reset()
			f.conn.RemoveStreams(s)
		}
	}
}

func (f *forwarder) serve(id string, p *streamPair, port int32) {
	late := time.NewTimer(pairWait)
	defer late.Stop()
	select {
	case <-p.complete:
	case <-f.ctx.Done():
		return
	case <-late.C:
		return // ended resets the half that came
	}
	for _, r := range p.replied {
		<-r
	}
	if err := f.carry(p.data, port); err != nil {
		// Clients print this. If it cannot be sent, the client has gone.
		_, _ = fmt.Fprintf(p.failed, "error forwarding port %d to pod %s, uid %s: %v", port, f.x.Pod.Name, f.x.Pod.UID, err)
		_ = p.data.Reset()
		return
	}
	_ = p.data.Close()
}

// carry joins one client connection with a port in the pod.
func (f *forwarder) carry(data httpstream.Stream, port int32) error {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	st, err := f.x.open(ctx, wire.StreamRequest{Kind: wire.StreamPortForward, Port: port})
	if err != nil {
		return err
	}
	defer func() { _ = st.Close(wire.StreamEnd{}) }()
	go contain.Go(f.x.Log, "hub/apiserver/podstream/forward", f.x.key(), func() { toPod(ctx, data, st) })
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
			_ = data.Close() // the pod sends no more
			continue
		}
		if _, err := data.Write(b); err != nil {
			return nil // the client has gone
		}
	}
}

// toPod carries what the client sends.
func toPod(ctx context.Context, data httpstream.Stream, st wire.Stream) {
	buf := make([]byte, 32<<10)
	for {
		n, err := data.Read(buf)
		if n > 0 && st.Send(ctx, wire.ChannelStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			// The client sends no more; the pod may still answer.
			_ = st.CloseSend(ctx, wire.ChannelStdin)
			return
		}
	}
}

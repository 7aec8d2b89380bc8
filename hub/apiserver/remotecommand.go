package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// terminal is the client's side of exec or attach, whatever protocol it speaks.
type terminal interface {
	// read calls send for everything that the client says, and closed when it has ended a channel, until the client goes
	// away or one of them fails. send may be called by one goroutine at a time only; read sees to that.
	read(send func(wire.Channel, []byte) error, closed func(wire.Channel) error)
	write(ch wire.Channel, data []byte) error
	// end tells how it went, and closes the connection when the client has had its chance to read that.
	end(*metav1.Status)
}

func (x *exchange) remoteCommand(pod *corev1.Pod, kind wire.StreamKind) {
	req, err := x.commandRequest(pod, kind)
	if err != nil {
		x.fail(err)
		return
	}
	upgrade := x.upgradeOf()
	if upgrade == "" {
		x.fail(apierrors.NewBadRequest("Upgrade request required"))
		return
	}
	// The stream is opened before the upgrade: a dark node is then an ordinary HTTP error.
	st, err := x.open(x.ctx, pod, req)
	if err != nil {
		x.fail(err)
		return
	}
	var t terminal
	if upgrade == "websocket" {
		t, err = x.webSocketTerminal()
	} else {
		t, err = x.spdyTerminal(req)
	}
	if err != nil { // the client has been told
		_ = st.Close(wire.StreamEnd{Reason: string(metav1.StatusReasonBadRequest), Message: "the client could not be reached"})
		x.s.Log.Debug("upgrade failed", "path", x.r.URL.Path, "error", err)
		return
	}
	joinTerminal(x.ctx, x.s.Log, t, st)
}

func (x *exchange) commandRequest(pod *corev1.Pod, kind wire.StreamKind) (wire.StreamRequest, error) {
	req := wire.StreamRequest{
		Kind: kind, Stdin: x.boolQuery("stdin"), Stdout: x.boolQuery("stdout"), Stderr: x.boolQuery("stderr"), TTY: x.boolQuery("tty"),
		Command: x.query["command"],
	}
	var err error
	if req.Container, err = containerOf(pod, x.query.Get("container")); err != nil {
		return req, err
	}
	switch {
	case kind == wire.StreamExec && len(req.Command) == 0:
		return req, apierrors.NewBadRequest("you must specify at least 1 command for the container")
	case req.TTY && req.Stderr:
		return req, apierrors.NewBadRequest("tty and stderr cannot both be true")
	case !req.Stdin && !req.Stdout && !req.Stderr:
		return req, apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	return req, nil
}

// upgradeOf is the protocol that the client wants to change to: "websocket", "spdy" or "".
func (x *exchange) upgradeOf() string {
	if !strings.Contains(strings.ToLower(x.r.Header.Get("Connection")), "upgrade") {
		return ""
	}
	switch up := strings.ToLower(x.r.Header.Get("Upgrade")); {
	case up == "websocket":
		return "websocket"
	case strings.HasPrefix(up, "spdy/3.1"):
		return "spdy"
	}
	return ""
}

// joinTerminal carries bytes between client and node until either side ends.
func joinTerminal(ctx context.Context, log *slog.Logger, t terminal, st wire.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel() // a client that has gone ends the stream
		contain.Go(log, "hub/apiserver/terminal", "input", func() {
			t.read(
				func(ch wire.Channel, data []byte) error { return st.Send(ctx, ch, data) },
				func(ch wire.Channel) error { return st.CloseSend(ctx, ch) },
			)
		})
	}()
	var end error
	for {
		ch, data, err := st.Recv(ctx)
		if err != nil {
			end = err
			switch context.Cause(ctx) {
			case errClosing:
				end = apierrors.NewServiceUnavailable(errClosing.Error())
			case errRevoked:
				end = apierrors.NewUnauthorized(errRevoked.Error())
			}
			break
		}
		if data != nil {
			if err := t.write(ch, data); err != nil {
				end = err
				break
			}
		}
	}
	_ = st.Close(wire.StreamEnd{})
	t.end(endStatus(end))
	<-gone
}

// size is what clients send on the resize channel.
type size struct{ Width, Height uint16 }

// oneSender lets several channels of a client share a stream that knows one sender.
type oneSender struct{ sync.Mutex }

func (o *oneSender) do(f func() error) error {
	o.Lock()
	defer o.Unlock()
	return f()
}

func statusJSON(s *metav1.Status) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("apiserver: a Status has a JSON form: " + err.Error())
	}
	return b
}

var errUpgrade = errors.New("the client speaks none of the subprotocols")

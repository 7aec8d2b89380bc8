package podstream

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// terminal is the client's side of exec or attach, whatever protocol it speaks.
type terminal interface {
	// read calls send for everything that the client sends, and closed when it has ended a channel, until the client goes
	// away or one of them fails. read calls send from one goroutine at a time.
	read(send func(wire.Channel, []byte) error, closed func(wire.Channel) error)
	write(ch wire.Channel, data []byte) error
	// end sends how it went, and closes the connection once the client has read it, or its time is up.
	end(*metav1.Status)
}

// remoteCommand serves exec and attach.
func (x *stream) remoteCommand(kind wire.StreamKind) {
	req, err := x.commandRequest(kind)
	if err != nil {
		x.Fail(err)
		return
	}
	upgrade := x.upgradeOf()
	if upgrade == "" {
		x.Fail(apierrors.NewBadRequest("Upgrade request required"))
		return
	}
	// The stream is opened before the upgrade: a dark node is then an ordinary HTTP error.
	st, err := x.open(x.ctx, req)
	if err != nil {
		x.Fail(err)
		return
	}
	var t terminal
	if upgrade == "websocket" {
		t, err = x.webSocketTerminal()
	} else {
		t, err = x.spdyTerminal(req)
	}
	if err != nil { // the client has its answer
		_ = st.Close(wire.StreamEnd{Reason: string(metav1.StatusReasonBadRequest), Message: "the client could not be reached"})
		x.Log.Debug("upgrade failed", "path", x.R.URL.Path, "error", err)
		return
	}
	x.join(t, st)
}

func (x *stream) commandRequest(kind wire.StreamKind) (wire.StreamRequest, error) {
	req := wire.StreamRequest{
		Kind: kind, Stdin: x.boolQuery("stdin"), Stdout: x.boolQuery("stdout"), Stderr: x.boolQuery("stderr"), TTY: x.boolQuery("tty"),
		Command: x.query["command"],
	}
	var err error
	if req.Container, err = containerOf(x.Pod, x.query.Get("container")); err != nil {
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

// join carries bytes between client and node until either side ends.
func (x *stream) join(t terminal, st wire.Stream) {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel() // a client that has gone ends the stream
		contain.Go(x.Log, "hub/apiserver/podstream/terminal", x.key(), func() {
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
			// A cause other than ctx's own error is a reason that the client does not know; without one, client or node has gone.
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
				end = apierrors.NewServiceUnavailable(cause.Error())
				if status := apierrors.APIStatus(nil); errors.As(cause, &status) {
					end = cause
				}
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
	t.end(endStatus(end, x.Status))
	<-gone
}

// size is what clients send on the resize channel.
type size struct{ Width, Height uint16 }

// oneSender lets several channels of a client share a stream that may have one sender at a time.
type oneSender struct{ sync.Mutex }

func (o *oneSender) do(f func() error) error {
	o.Lock()
	defer o.Unlock()
	return f()
}

var errUpgrade = errors.New("the client speaks none of the subprotocols")

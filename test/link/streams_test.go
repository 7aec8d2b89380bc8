package link_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

// echo sends stdin back until its end, then ends with code 7, as a process would.
func echo(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	if req.Pod == "missing" {
		_ = s.Close(wire.StreamEnd{Reason: "NotFound", Message: "no such pod here"})
		return
	}
	for {
		ch, b, err := s.Recv(ctx)
		if err != nil {
			return
		}
		if b == nil {
			break
		}
		if ch == wire.ChannelStdin && s.Send(ctx, wire.ChannelStdout, b) != nil {
			return
		}
	}
	_ = s.Close(wire.StreamEnd{ExitCode: 7, Message: "exit code 7"})
}

func TestStream(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		ctx := t.Context()
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{}))
		a.serve = echo
		a.start()
		h.waitConnected("n1")

		s, err := h.d.OpenStream(ctx, "n1", wire.StreamRequest{Kind: wire.StreamExec, Pod: "p"})
		must(t, err)
		// Ten windows' worth in each direction, so that credits have to go round.
		sent := bytes.Repeat([]byte("0123456789abcdef"), 160<<10)
		go func() {
			_ = s.Send(ctx, wire.ChannelStdin, sent)
			_ = s.CloseSend(ctx, wire.ChannelStdin)
		}()
		sum, n := sha256.New(), 0
		var end *wire.StreamEnd
		for {
			ch, b, err := s.Recv(ctx)
			if errors.As(err, &end) {
				break
			}
			must(t, err)
			if ch != wire.ChannelStdout {
				t.Fatalf("data on channel %d", ch)
			}
			sum.Write(b)
			n += len(b)
		}
		if want := sha256.Sum256(sent); !bytes.Equal(sum.Sum(nil), want[:]) {
			t.Errorf("echo of %d bytes came back as %d other ones", len(sent), n)
		}
		if end.ExitCode != 7 {
			t.Errorf("exit code %d", end.ExitCode)
		}

		s, err = h.d.OpenStream(ctx, "n1", wire.StreamRequest{Kind: wire.StreamLogs, Pod: "missing"})
		must(t, err)
		if _, _, err = s.Recv(ctx); !errors.As(err, &end) || end.Reason != "NotFound" {
			t.Errorf("refused stream: %v", err)
		}
	})
}

// A link cut ends the stream on both sides, with an error; the next stream works.
func TestStreamCut(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		ctx := t.Context()
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{}))
		served := make(chan struct{}, 4)
		a.serve = func(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
			echo(ctx, req, s)
			served <- struct{}{}
		}
		a.start()
		h.waitConnected("n1")
		s, err := h.d.OpenStream(ctx, "n1", wire.StreamRequest{Pod: "p"})
		must(t, err)
		must(t, s.Send(ctx, wire.ChannelStdin, []byte("hello")))
		if _, b, err := s.Recv(ctx); err != nil || string(b) != "hello" {
			t.Fatalf("echo: %q, %v", b, err)
		}
		a.kill()
		if _, _, err := s.Recv(ctx); !errors.Is(err, wire.ErrStreamCut) {
			t.Errorf("after the cut: %v", err)
		}
		<-served
		eventually(t, "n1 counts as dark", func() bool { return !h.connected("n1") })
		_, err = h.d.OpenStream(ctx, "n1", wire.StreamRequest{Pod: "p"})
		if !apierrors.IsServiceUnavailable(err) || !bytes.Contains([]byte(err.Error()), []byte("n1")) || !bytes.Contains([]byte(err.Error()), []byte(time.Now().UTC().Format("2006-01-02"))) {
			t.Errorf("stream to a dark node: %v", err)
		}
		for _, says := range []string{"node n1 is not connected: it was last heard of at ", " ago. Its pods go on running there", "logs, exec, attach, port-forward and metrics work again then"} {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("stream to a dark node: %v; it should say %q", err, says)
			}
		}
		if _, err = h.d.OpenStream(ctx, "n2", wire.StreamRequest{}); !apierrors.IsNotFound(err) {
			t.Errorf("stream to no node: %v", err)
		}
		if err := h.d.Absent("n2"); !apierrors.IsNotFound(err) {
			t.Errorf("no node: %v", err)
		}
		if url == "" {
			restarted(t, h)
		}
		a.start()
		h.waitConnected("n1")
		must(t, h.d.Absent("n1"))
		s, err = h.d.OpenStream(ctx, "n1", wire.StreamRequest{Pod: "p"})
		must(t, err)
		must(t, s.Send(ctx, wire.ChannelStdin, []byte("again")))
		if _, b, err := s.Recv(ctx); err != nil || string(b) != "again" {
			t.Fatalf("echo: %q, %v", b, err)
		}
		must(t, s.Close(wire.StreamEnd{}))
		<-served
	})
}

// restarted checks that a hub which was started again does not make a time up for a node that is still dark.
func restarted(t *testing.T, h *hub) {
	t.Helper()
	h.kill()
	h.start()
	if err := h.d.Absent("n1"); err == nil || !strings.Contains(err.Error(), "it has not been heard of since this hub started") {
		t.Errorf("after a restart: %v", err)
	}
}

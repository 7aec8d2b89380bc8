package ctrd

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/wire"
)

// TestStdinEnds checks that what a client of "kubectl run -i" sends has an end for the container, too.
func TestStdinEnds(t *testing.T) {
	b := newBench(t)
	b.pod("once", corev1.Container{Stdin: true, StdinOnce: true, Command: []string{"sh", "-c", "cat; echo all of it; sleep 1000"}})
	b.await("once", "running", isRunning)
	s := b.dial(wire.StreamRequest{Kind: wire.StreamAttach, PodUID: "once", Container: "main", Stdin: true, Stdout: true})
	send(t, s, wire.ChannelStdin, "hello\n")
	if err := s.CloseSend(context.Background(), wire.ChannelStdin); err != nil {
		t.Fatal(err)
	}
	if got := until(t, s, "all of it"); !strings.Contains(got, "hello") {
		t.Errorf("got %q", got)
	}
	_ = s.Close(wire.StreamEnd{})
}

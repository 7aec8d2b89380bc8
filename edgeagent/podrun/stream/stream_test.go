package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/wire"
)

// runtime has one running container, "main", and one that has not begun, "late".
type runtime struct{ code int }

func (runtime) Containers(context.Context, string) ([]cruntime.Container, error) {
	return []cruntime.Container{{ID: "1", Name: "main", State: cruntime.Running}, {ID: "2", Name: "late", State: cruntime.Created}}, nil
}

func (r runtime) Exec(_ context.Context, _ string, s cruntime.ExecSpec) (int, error) {
	_, err := s.Stdout.Write([]byte("out"))
	return r.code, err
}

// peer is the hub's end of a stream, from which nothing comes.
type peer struct {
	sent  string
	ended []wire.Channel
	end   wire.StreamEnd
}

func (p *peer) Send(_ context.Context, _ wire.Channel, data []byte) error {
	p.sent += string(data)
	return nil
}
func (p *peer) CloseSend(_ context.Context, ch wire.Channel) error {
	p.ended = append(p.ended, ch)
	return nil
}
func (*peer) Recv(ctx context.Context) (wire.Channel, []byte, error) {
	<-ctx.Done()
	return 0, nil, ctx.Err()
}
func (p *peer) Close(end wire.StreamEnd) error {
	p.end = end
	return nil
}

func server(code int) *Server {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}, {Name: "late"}}}}
	status := &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "late", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}}
	pods := map[string]Pod{"u": {UID: "u", Object: pod, Status: status, Place: &Place{Netns: "/ns", IPs: []string{"10.42.0.2"}}}, "new": {UID: "new", Object: pod, Status: status}}
	return New(Config{Runtime: runtime{code}, Pod: func(uid string) (Pod, bool) { p, ok := pods[uid]; return p, ok }, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string, int) (net.Conn, error) {
			return nil, errors.New("connection refused")
		}})
}

// TestRefusals covers why a stream cannot be, with the API's reason and a text for the user.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, reason, message string
		req                   wire.StreamRequest
	}{
		{"no pod", "NotFound", "pod ns/gone is not on this node", wire.StreamRequest{Kind: wire.StreamExec, PodUID: "x", Namespace: "ns", Pod: "gone"}},
		{"no such container", "BadRequest", "container nope is not valid for pod p", wire.StreamRequest{Kind: wire.StreamExec, PodUID: "u", Container: "nope"}},
		{"not running", "NotFound", `container not found ("late")`, wire.StreamRequest{Kind: wire.StreamExec, PodUID: "u", Container: "late"}},
		{"no command", "BadRequest", "you must specify at least one command for the container", wire.StreamRequest{Kind: wire.StreamExec, PodUID: "u"}},
		{"unknown kind", "BadRequest", `this agent knows no stream of kind "dance"`, wire.StreamRequest{Kind: "dance", PodUID: "u"}},
		{"no attach here", "BadRequest", "this node's container runtime cannot attach", wire.StreamRequest{Kind: wire.StreamAttach, PodUID: "u"}},
		{"log of none", "BadRequest", "container nope is not valid for pod p", wire.StreamRequest{Kind: wire.StreamLogs, PodUID: "u", Container: "nope"}},
		{"log too early", "BadRequest", `container "late" in pod "p" is waiting to start: ImagePullBackOff`, wire.StreamRequest{Kind: wire.StreamLogs, PodUID: "u", Container: "late"}},
		{"no previous log", "BadRequest", `previous terminated container "main" in pod "p" not found`,
			wire.StreamRequest{Kind: wire.StreamLogs, PodUID: "u", Log: []byte(`{"previous":true}`)}},
		{"no sandbox", "NotFound", "pod ns/p is not running", wire.StreamRequest{Kind: wire.StreamPortForward, PodUID: "new", Namespace: "ns", Pod: "p", Port: 80}},
		{"no sandbox to connect to", "NotFound", "pod ns/p is not running", wire.StreamRequest{Kind: wire.StreamConnect, PodUID: "new", Namespace: "ns", Pod: "p", Port: 80}},
		{"nothing listens", "BadRequest", "port 80 of pod p: connection refused", wire.StreamRequest{Kind: wire.StreamPortForward, PodUID: "u", Pod: "p", Port: 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{}
			server(0).Serve(t.Context(), c.req, p)
			if p.end.Reason != c.reason || p.end.Message != c.message {
				t.Errorf("%s: %q, want %s: %q", p.end.Reason, p.end.Message, c.reason, c.message)
			}
		})
	}
}

// TestExec checks that output goes to the stream, and its end carries the exit code. Without a container's name it is the pod's
// first.
func TestExec(t *testing.T) {
	for code, message := range map[int]string{0: "", 3: "command terminated with exit code 3"} {
		p := &peer{}
		server(code).Serve(t.Context(), wire.StreamRequest{Kind: wire.StreamExec, PodUID: "u", Command: []string{"x"}, Stdout: true}, p)
		if p.sent != "out" || p.end.ExitCode != code || p.end.Message != message || p.end.Reason != "" {
			t.Errorf("%q, %+v", p.sent, p.end)
		}
	}
}

// TestWhereStreamsConnect checks that port-forward reaches the pod's loopback and connect its own address, in its network, and
// that only connect shows when its connection stands.
func TestWhereStreamsConnect(t *testing.T) {
	for kind, where := range map[wire.StreamKind]string{wire.StreamPortForward: "/ns  80", wire.StreamConnect: "/ns 10.42.0.2 80"} {
		v := server(0)
		v.cfg.Dial = func(_ context.Context, netns, host string, port int) (net.Conn, error) {
			ours, pods := net.Pipe()
			go func() { _, _ = fmt.Fprintf(pods, "%s %s %d", netns, host, port); pods.Close() }()
			return ours, nil
		}
		p := &peer{}
		v.Serve(t.Context(), wire.StreamRequest{Kind: kind, PodUID: "u", Pod: "p", Port: 80}, p)
		if p.sent != where || p.end.Reason != "" {
			t.Errorf("%s reached %q, not %q: %+v", kind, p.sent, where, p.end)
		}
		if stands := len(p.ended) == 1 && p.ended[0] == wire.ChannelStderr; stands != (kind == wire.StreamConnect) {
			t.Errorf("%s ended the channels %v", kind, p.ended)
		}
	}
}

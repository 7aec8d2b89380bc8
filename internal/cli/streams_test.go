package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

func TestLogs(t *testing.T) {
	h := newFakeHub(t)
	h.serve("/api/v1/namespaces/default/pods/one", fakePod("one", "app"))
	h.serve("/api/v1/namespaces/default/pods/two", fakePod("two", "app", "side"))
	h.serve("/api/v1/namespaces/default/pods", corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*fakePod("one", "app"), *fakePod("two", "app", "side")}})
	for _, pod := range []string{"one", "two"} {
		h.mux.HandleFunc("/api/v1/namespaces/default/pods/"+pod+"/log", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("previous") == "true" {
				h.refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "previous terminated container not found")
				return
			}
			fmt.Fprintf(w, "first of %s\nlast without newline", r.URL.Query().Get("container"))
		})
	}
	all := int64(-1) // what the command line has for --tail unless it is set
	for _, c := range []struct {
		name string
		logs Logs
		out  string
		err  string // on the error stream
	}{
		{"one pod, as it is", Logs{Args: []string{"one"}, Tail: all}, "first of app\nlast without newline", ""},
		{"the first container, and the choice", Logs{Args: []string{"two"}, Tail: all}, "first of app\nlast without newline", `Defaulted container "app" out of: app, side`},
		{"container as second argument", Logs{Args: []string{"two", "side"}, Tail: all}, "first of side\nlast without newline", ""},
		{"container by flag", Logs{Args: []string{"pod/two"}, Container: "side", Tail: all}, "first of side\nlast without newline", ""},
		{"all containers, each line with its own", Logs{Args: []string{"two"}, AllContainers: true, Prefix: true, Tail: all},
			"[pod/two/app] first of app\n[pod/two/app] last without newline[pod/two/side] first of side\n[pod/two/side] last without newline", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o output
			c.logs.Cluster = h.cluster()
			if err := c.logs.Run(t.Context(), o.streams("")); err != nil {
				t.Fatal(err)
			}
			if o.out.String() != c.out || !strings.Contains(o.err.String(), c.err) {
				t.Errorf("out %q, err %q", o.out.String(), o.err.String())
			}
		})
	}

	var o output
	l := Logs{Cluster: h.cluster(), Selector: "a=b", Prefix: true, Follow: true, Tail: 7, Since: 1500 * time.Millisecond, Timestamps: true, LimitBytes: 99}
	if err := l.Run(t.Context(), o.streams("")); err != nil {
		t.Fatal(err)
	}
	if !h.asked("/pods/two/log?", "follow=true", "tailLines=7", "sinceSeconds=2", "timestamps=true", "limitBytes=99") || !h.asked("GET /api/v1/namespaces/default/pods?", "labelSelector=a%3Db") {
		t.Errorf("asked for %q", h.requests)
	}

	mustFail(t, (&Logs{Cluster: h.cluster()}).Run(t.Context(), o.streams("")), "name one pod, as POD or TYPE/NAME, or several by -l SELECTOR")
	mustFail(t, (&Logs{Cluster: h.cluster(), Args: []string{"none"}}).Run(t.Context(), o.streams("")), `"none" not found`)
	mustFail(t, (&Logs{Cluster: h.cluster(), Args: []string{"one"}, Container: "x"}).Run(t.Context(), o.streams("")), `pod one has no container "x"; it has app`)
	mustFail(t, (&Logs{Cluster: h.cluster(), Args: []string{"one"}, Previous: true}).Run(t.Context(), o.streams("")), "previous terminated container not found (BadRequest)")
}

// streamServer is the node's end of exec and attach over WebSocket: it writes one line to each stream, repeats what comes in,
// and ends with a status.
func streamServer(t *testing.T, status string) http.HandlerFunc {
	up := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	return func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		const stdin, stdout, stderr, failure, closing = 0, 1, 2, 3, 255
		send := func(channel byte, text string) {
			_ = ws.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, text...))
		}
		send(stdout, "out\n")
		if r.URL.Query().Get("stderr") == "true" {
			send(stderr, "err\n")
		}
		for open := r.URL.Query().Get("stdin") == "true"; open; {
			_, m, err := ws.ReadMessage()
			switch {
			case err != nil || len(m) > 1 && m[0] == closing && m[1] == stdin:
				open = false
			case len(m) > 1 && m[0] == stdin:
				send(stdout, string(m[1:]))
			}
		}
		send(failure, status)
		_ = ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
		_, _, _ = ws.ReadMessage() // until the client has closed too
	}
}

func TestExec(t *testing.T) {
	h := newFakeHub(t)
	h.serve("/api/v1/namespaces/default/pods/web", fakePod("web", "app", "side"))
	h.serve("/api/v1/namespaces/default/pods/bad", fakePod("bad", "app"))
	over := fakePod("over", "app")
	over.Status.Phase = corev1.PodSucceeded
	h.serve("/api/v1/namespaces/default/pods/over", over)
	h.mux.HandleFunc("/api/v1/namespaces/default/pods/web/exec", streamServer(t, `{"status":"Success"}`))
	h.mux.HandleFunc("/api/v1/namespaces/default/pods/web/attach", streamServer(t, `{"status":"Success"}`))
	h.mux.HandleFunc("/api/v1/namespaces/default/pods/bad/exec", streamServer(t,
		`{"status":"Failure","reason":"NonZeroExitCode","message":"exit 3","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}`))

	var o output
	e := Exec{Cluster: h.cluster(), Pod: "web", Container: "side", Command: []string{"--", "cat", "-"}, Stdin: true}
	if err := e.Run(t.Context(), o.streams("typed\n")); err != nil {
		t.Fatal(err)
	}
	if o.out.String() != "out\ntyped\n" || o.err.String() != "err\n" {
		t.Errorf("out %q, err %q", o.out.String(), o.err.String())
	}
	if !h.asked("GET", "/pods/web/exec?", "command=cat&command=-", "container=side", "stdin=true") {
		t.Errorf("asked for %q", h.requests)
	}

	o = output{}
	a := Attach{Cluster: h.cluster(), Pod: "pod/web"}
	if err := a.Run(t.Context(), o.streams("")); err != nil {
		t.Fatal(err)
	}
	if o.out.String() != "out\n" || !strings.Contains(o.err.String(), "Defaulted container") {
		t.Errorf("attach: out %q, err %q", o.out.String(), o.err.String())
	}

	// The exit code of the command is petrel's own.
	o = output{}
	err := (&Exec{Cluster: h.cluster(), Pod: "bad", Command: []string{"false"}}).Run(t.Context(), o.streams(""))
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || !strings.Contains(o.err.String(), "command terminated with exit code 3\n") {
		t.Errorf("%v, err %q", err, o.err.String())
	}
	// Without a terminal -t is not obeyed, and says so.
	o = output{}
	if err := (&Exec{Cluster: h.cluster(), Pod: "web", TTY: true, Stdin: true, Command: []string{"sh"}}).Run(t.Context(), o.streams("")); err != nil {
		t.Error(err)
	}
	if !strings.Contains(o.err.String(), "Unable to use a TTY") {
		t.Errorf("err %q", o.err.String())
	}

	mustFail(t, (&Exec{Cluster: h.cluster(), Pod: "web"}).Run(t.Context(), o.streams("")), "no command: write it after --")
	mustFail(t, (&Exec{Cluster: h.cluster(), Pod: "none", Command: []string{"ls"}}).Run(t.Context(), o.streams("")), `"none" not found`)
	mustFail(t, (&Exec{Cluster: h.cluster(), Pod: "web", Container: "x", Command: []string{"ls"}}).Run(t.Context(), o.streams("")), `has no container "x"; it has app, side`)
	mustFail(t, (&Exec{Cluster: h.cluster(), Pod: "over", Command: []string{"ls"}}).Run(t.Context(), o.streams("")), "completed pod; current phase is Succeeded")
	mustFail(t, (&Attach{Cluster: h.cluster(), Pod: "over"}).Run(t.Context(), o.streams("")), "completed pod; current phase is Succeeded")
}

// TestPortForward sends bytes through a local port to the port of a Service's pod and back, over SPDY as an older server has it.
func TestPortForward(t *testing.T) {
	h := newFakeHub(t)
	pod := fakePod("web", "app")
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	h.serve("/api/v1/namespaces/default/pods", corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod}})
	h.serve("/api/v1/namespaces/default/services/front", corev1.Service{
		TypeMeta: metav1.TypeMeta{Kind: "Service", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "front"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}},
	})
	ports := make(chan string, 8)
	h.mux.HandleFunc("POST /api/v1/namespaces/default/pods/web/portforward", func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
			t.Error(err)
			return
		}
		c := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, accepted <-chan struct{}) error {
			data := s.Headers().Get(corev1.StreamType) == corev1.StreamTypeData
			if data {
				ports <- s.Headers().Get(corev1.PortHeader)
			}
			go func() {
				<-accepted
				if data {
					_, _ = io.Copy(s, s)
				}
				_ = s.Close() // of the stream for errors: there was none
			}()
			return nil
		})
		if c != nil {
			<-c.CloseChan()
		}
	})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, lines := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		p := PortForward{Cluster: h.cluster(), Pod: "svc/front", Ports: []string{"0:80"}, Address: []string{"127.0.0.1"}}
		ended <- p.Run(ctx, &Streams{Out: lines, Err: io.Discard})
		lines.Close()
	}()
	text := bufio.NewReader(out)
	line, err := text.ReadString('\n')
	if err != nil {
		t.Fatalf("%v, %v", err, <-ended)
	}
	go func() { _, _ = io.Copy(io.Discard, text) }()
	_, rest, _ := strings.Cut(line, "Forwarding from ")
	addr, _, ok := strings.Cut(rest, " -> 8080")
	if !ok {
		t.Fatalf("printed %q", line)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "through"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "through" || <-ports != "8080" {
		t.Errorf("%q, %v", got, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPortForwardRefusals(t *testing.T) {
	h := newFakeHub(t)
	waits := fakePod("waits", "app")
	waits.Status.Phase = corev1.PodPending
	h.serve("/api/v1/namespaces/default/pods/waits", waits)
	h.serve("/api/v1/namespaces/default/pods/web", fakePod("web", "app"))
	forward := func(pod string, ports ...string) error {
		return (&PortForward{Cluster: h.cluster(), Pod: pod, Ports: ports, Address: []string{"localhost"}}).Run(t.Context(), &Streams{Out: io.Discard, Err: io.Discard})
	}
	mustFail(t, forward("waits", "80"), "pod waits is Pending; only a running pod can be forwarded to")
	mustFail(t, forward("none", "80"), `"none" not found`)
	mustFail(t, forward("web", "http"), `error parsing local port 'http'`)
}

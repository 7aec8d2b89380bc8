package ctrd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/internal/wire"
)

func TestStreams(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	b.pod("work", corev1.Container{Command: []string{"/bin/sh", "-c", "echo out; echo err >&2; while read l; do echo got $l; done; echo end; sleep 1000"}, Stdin: true})
	b.await("work", "running", isRunning)
	req := wire.StreamRequest{PodUID: "work", Namespace: "default", Pod: "work", Container: "main"}

	t.Run("exec", func(t *testing.T) {
		r := req
		r.Kind, r.Command, r.Stdin, r.Stdout, r.Stderr = wire.StreamExec, []string{"/bin/sh", "-c", "cat; echo bad >&2; exit 9"}, true, true, true
		s := b.dial(r)
		send(t, s, wire.ChannelStdin, "some ")
		send(t, s, wire.ChannelStdin, "text\n")
		if err := s.CloseSend(ctx, wire.ChannelStdin); err != nil {
			t.Fatal(err)
		}
		if out, errs, end := drain(t, s); out != "some text\n" || errs != "bad\n" || end.ExitCode != 9 {
			t.Errorf("stdout %q, stderr %q, end %+v", out, errs, end)
		}
	})
	t.Run("exec of much output", func(t *testing.T) {
		r := req
		r.Kind, r.Command, r.Stdout = wire.StreamExec, []string{"/bin/sh", "-c", "seq 1 200000"}, true
		if out, _, end := drain(t, b.dial(r)); len(out) != 1288895 || !strings.HasSuffix(out, "\n200000\n") || end.ExitCode != 0 {
			t.Errorf("%d bytes, end %+v", len(out), end)
		}
	})
	t.Run("exec with a terminal", func(t *testing.T) {
		r := req
		r.Kind, r.Command, r.Stdin, r.Stdout, r.TTY = wire.StreamExec, []string{"/bin/sh"}, true, true, true
		s := b.dial(r)
		until(t, s, "# ")
		send(t, s, wire.ChannelResize, `{"Width":91,"Height":17}`)
		send(t, s, wire.ChannelStdin, "until [ \"$(stty size)\" = '17 9'1 ]; do sleep 0.1; done; stty size\n") // its echo is not the answer
		until(t, s, "17 91")
		send(t, s, wire.ChannelStdin, "exit 3\n")
		if _, _, end := drain(t, s); end.ExitCode != 3 {
			t.Errorf("end %+v", end)
		}
	})
	t.Run("exec ends with its caller", func(t *testing.T) {
		r := req
		r.Kind, r.Command, r.Stdout = wire.StreamExec, []string{"/bin/sh", "-c", "echo go; exec sleep 4321"}, true
		s := b.dial(r)
		until(t, s, "go")
		_ = s.Close(wire.StreamEnd{})
		r.Command = []string{"/bin/sh", "-c", "for i in $(seq 600); do ps | grep -q 'sleep 432[1]' || exit 0; sleep 0.1; done; exit 1"}
		if _, _, end := drain(t, b.dial(r)); end.ExitCode != 0 {
			t.Error("the process goes on without its caller")
		}
	})
	t.Run("exec of what is not there", func(t *testing.T) {
		r := req
		r.Kind, r.Command = wire.StreamExec, []string{"/no/such"}
		if _, _, end := drain(t, b.dial(r)); end.Reason != "InternalError" || !strings.Contains(end.Message, "/no/such") {
			t.Errorf("end %+v", end)
		}
		r.Container = "other"
		if _, _, end := drain(t, b.dial(r)); end.Reason != "BadRequest" {
			t.Errorf("end %+v", end)
		}
		r.PodUID = "other"
		if _, _, end := drain(t, b.dial(r)); end.Reason != "NotFound" {
			t.Errorf("end %+v", end)
		}
	})
	t.Run("logs", func(t *testing.T) {
		r := req
		r.Kind = wire.StreamLogs
		if out, _, end := drain(t, b.dial(r)); out != "out\nerr\n" && out != "err\nout\n" || end.Reason != "" {
			t.Errorf("log %q, end %+v", out, end)
		}
		r.Log = []byte(`{"tailLines":1,"limitBytes":2}`)
		if out, _, _ := drain(t, b.dial(r)); out != "er" && out != "ou" {
			t.Errorf("log %q", out)
		}
		r.Log = []byte(`{"previous":true}`)
		if _, _, end := drain(t, b.dial(r)); end.Reason != "BadRequest" || !strings.Contains(end.Message, "previous terminated container") {
			t.Errorf("end %+v", end)
		}
	})
	t.Run("attach, followed by logs", func(t *testing.T) {
		l := req
		l.Kind, l.Log = wire.StreamLogs, []byte(`{"follow":true,"timestamps":true}`)
		logs := b.dial(l)
		until(t, logs, " out\n")
		r := req
		r.Kind, r.Stdin, r.Stdout, r.Stderr = wire.StreamAttach, true, true, true
		s := b.dial(r)
		time.Sleep(100 * time.Millisecond)
		send(t, s, wire.ChannelStdin, "hello\n")
		if got := until(t, s, "got hello\n"); strings.Contains(got, "out\n") {
			t.Errorf("attach shows what was before: %q", got)
		}
		until(t, logs, " got hello\n")
		_ = s.Close(wire.StreamEnd{})
		_ = logs.Close(wire.StreamEnd{})
	})
	t.Run("port-forward", func(t *testing.T) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answer") }))
		defer srv.Close()
		r := req
		_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
		n, _ := strconv.Atoi(port)
		r.Kind, r.Port = wire.StreamPortForward, int32(n)
		s := b.dial(r)
		send(t, s, wire.ChannelStdin, "GET / HTTP/1.0\r\n\r\n")
		if out, _, end := drain(t, s); !strings.HasSuffix(out, "answer") || end.Reason != "" {
			t.Errorf("got %q, end %+v", out, end)
		}
		r.Port = 1
		if _, _, end := drain(t, b.dial(r)); end.Reason == "" {
			t.Error("a closed port is forwarded")
		}
	})
}

// TestTerminalContainer is a container whose first process has a terminal: attach speaks to it, and its log is kept.
func TestTerminalContainer(t *testing.T) {
	b := newBench(t)
	b.pod("tty", corev1.Container{Command: []string{"/bin/sh"}, Stdin: true, TTY: true})
	b.await("tty", "running", isRunning)
	r := wire.StreamRequest{PodUID: "tty", Container: "main", Kind: wire.StreamAttach, Stdin: true, Stdout: true, TTY: true}
	s := b.dial(r)
	time.Sleep(100 * time.Millisecond)
	send(t, s, wire.ChannelStdin, "echo $((6*7))\n")
	until(t, s, "42")
	_ = s.Close(wire.StreamEnd{})
	r.Kind = wire.StreamLogs
	if out, _, _ := drain(t, b.dial(r)); !strings.Contains(out, "42") {
		t.Errorf("log %q", out)
	}
}

func TestRestarts(t *testing.T) {
	b := newBench(t)
	b.pod("crash", corev1.Container{Command: []string{"/bin/sh", "-c", "echo try; echo why > /dev/termination-log; exit 2"}, TerminationMessagePath: "/dev/termination-log"})
	st := b.await("crash", "backing off", func(st corev1.PodStatus) bool {
		w := st.ContainerStatuses
		return len(w) == 1 && w[0].State.Waiting != nil && w[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	c := st.ContainerStatuses[0]
	if last := c.LastTerminationState.Terminated; c.RestartCount != 1 || last == nil || last.ExitCode != 2 || last.Reason != "Error" || last.Message != "why\n" {
		t.Errorf("status %+v", c)
	}
	r := wire.StreamRequest{PodUID: "crash", Container: "main", Kind: wire.StreamLogs, Log: []byte(`{"previous":true}`)}
	if out, _, end := drain(t, b.dial(r)); out != "try\n" || end.Reason != "" {
		t.Errorf("previous log %q, end %+v", out, end)
	}
	b.pod("probed", corev1.Container{Command: []string{"/bin/sh", "-c", "touch /tmp/ok; sleep 1000"},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/tmp/ok"}}}, PeriodSeconds: 1, TimeoutSeconds: 30, FailureThreshold: 1},
		LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "!", "-e", "/tmp/sick"}}}, PeriodSeconds: 1, TimeoutSeconds: 30, FailureThreshold: 1}})
	isReady := func(want bool) func(corev1.PodStatus) bool {
		return func(st corev1.PodStatus) bool {
			return len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].Ready == want && isRunning(st)
		}
	}
	b.await("probed", "ready", isReady(true))
	run := func(cmd ...string) {
		t.Helper()
		if _, _, end := drain(t, b.dial(wire.StreamRequest{PodUID: "probed", Container: "main", Kind: wire.StreamExec, Command: cmd})); end.ExitCode != 0 || end.Reason != "" {
			t.Fatalf("%v: %+v", cmd, end)
		}
	}
	run("rm", "/tmp/ok")
	b.await("probed", "not ready", isReady(false))
	run("touch", "/tmp/sick")
	b.await("probed", "restarted", func(st corev1.PodStatus) bool { return isReady(true)(st) && st.ContainerStatuses[0].RestartCount == 1 })
	b.mu.Lock()
	defer b.mu.Unlock()
	reasons := map[string]bool{}
	for _, e := range b.events {
		reasons[e.Reason] = true
	}
	for _, want := range []string{"Pulled", "Created", "Started", "Unhealthy", "Killing"} {
		if !reasons[want] {
			t.Errorf("no event %s", want)
		}
	}
}

// TestPull pulls from a registry that asks for a login.
func TestPull(t *testing.T) {
	b := newBench(t)
	reg := registry.New(registry.Logger(silent()))
	pulls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "ann" || pass != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
			pulls++
		}
		reg.ServeHTTP(w, r)
	}))
	host := srv.Listener.Addr().String()
	ref, err := name.NewTag(host+"/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, runtimetest.Busybox(t), remote.WithAuth(&authn.Basic{Username: "ann", Password: "s3cret"})); err != nil {
		t.Fatal(err)
	}
	waits := func(reason string) func(corev1.PodStatus) bool {
		return func(st corev1.PodStatus) bool {
			return len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].State.Waiting != nil && st.ContainerStatuses[0].State.Waiting.Reason == reason
		}
	}
	work := corev1.Container{Image: ref.Name(), Command: []string{"sleep", "1000"}}
	b.pod("nologin", work)
	st := b.await("nologin", "refused", waits("ErrImagePull"))
	if msg := st.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(msg, "401") && !strings.Contains(msg, "authorization") {
		t.Errorf("message %q", msg)
	}
	cfg, _ := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"username": "ann", "password": "s3cret"}}})
	b.add(wire.KindSecret, "login", "login", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login", Namespace: "default"}, Data: map[string][]byte{corev1.DockerConfigJsonKey: cfg}})
	login := func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "login"}} }
	b.pod("login", work, login)
	st = b.await("login", "running", isRunning)
	if id := st.ContainerStatuses[0].ImageID; !strings.HasPrefix(id, host+"/team/app@sha256:") {
		t.Errorf("image ID %q", id)
	}
	b.pod("never", corev1.Container{Image: host + "/team/other:v1", ImagePullPolicy: corev1.PullNever}, login)
	b.await("never", "waiting", waits("ErrImageNeverPull"))
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	foreign, err := name.NewTag(host+"/team/foreign:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(foreign, runtimetest.Built(t, runtimetest.Busybox(t), other), remote.WithAuth(&authn.Basic{Username: "ann", Password: "s3cret"})); err != nil {
		t.Fatal(err)
	}
	b.pod("foreign", corev1.Container{Image: foreign.Name()}, login)
	st = b.await("foreign", "refused", waits("ErrImagePull"))
	if msg := st.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(msg, fmt.Sprintf("image %q exists for %s, not for this node's %s", foreign.Name(), other, runtime.GOARCH)) {
		t.Errorf("message %q", msg)
	}
	b.pod("bad", corev1.Container{Image: "Not A Name"})
	b.await("bad", "refused", waits("InvalidImageName"))

	// With the registry away, what is here runs, whatever the policy.
	before := pulls
	srv.Close()
	work.ImagePullPolicy = corev1.PullAlways
	b.pod("offline", work, login)
	b.await("offline", "running", isRunning)
	if pulls != before {
		t.Error("the registry was not away")
	}
	work.Image = host + "/team/absent:v1"
	b.pod("absent", work, login)
	b.await("absent", "waiting", waits("ErrImagePull"))
}

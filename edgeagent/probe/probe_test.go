package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestGauge(t *testing.T) {
	for _, c := range []struct {
		name             string
		success, failure int32
		answers, opinion string // of answers: + -; of opinions after each: + - or . for none formed
	}{
		{"defaults", 1, 3, "+--+---", "+..+..-"},
		{"slow to believe", 3, 1, "-++-+++", "-..-..+"},
		{"zero counts as one", 0, 0, "+-+", "+-+"},
		{"goes on deciding", 1, 2, "----", ".---"},
	} {
		g := Gauge{Success: c.success, Failure: c.failure}
		var got strings.Builder
		for _, a := range c.answers {
			switch {
			case !g.Add(a == '+'):
				got.WriteByte('.')
			case g.OK:
				got.WriteByte('+')
			default:
				got.WriteByte('-')
			}
		}
		if got.String() != c.opinion {
			t.Errorf("%s: %s gives %s, want %s", c.name, c.answers, got.String(), c.opinion)
		}
	}
}

func target(t *testing.T, addr string) (Target, int) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return Target{Host: func() string { return host }, Port: func(p intstr.IntOrString) (int, error) { return p.IntValue(), nil }}, n
}

func TestHTTP(t *testing.T) {
	var seen *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/elsewhere":
			http.Redirect(w, r, "http://other.invalid/", http.StatusFound)
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	tg, port := target(t, srv.Listener.Addr().String())
	for path, want := range map[string]bool{"/ok?x=1": true, "ok": true, "/moved": true, "/elsewhere": true, "/bad": false, "/slow": false} {
		seconds := int32(60) // the others answer, however slow this machine is
		if path == "/slow" {
			seconds = 1
		}
		p := &corev1.Probe{TimeoutSeconds: seconds, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(int32(port)),
			HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "app.test"}, {Name: "X-A", Value: "b"}}}}}
		ok, out, _ := Check(t.Context(), p, tg)
		if ok != want {
			t.Errorf("%s: %v, %s", path, ok, out)
		}
		if path == "/bad" && out != "HTTP probe failed with statuscode: 500" {
			t.Errorf("output %q", out)
		}
		if path == "ok" && (seen.Host != "app.test" || seen.Header.Get("X-A") != "b" || !strings.HasPrefix(seen.UserAgent(), "kube-probe/")) {
			t.Errorf("request %+v", seen)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tg, port := target(t, l.Addr().String())
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}}
	if ok, out, _ := Check(t.Context(), p, tg); !ok {
		t.Error(out)
	}
	l.Close()
	if ok, _, _ := Check(t.Context(), p, tg); ok {
		t.Error("a closed port passes")
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(srv, h)
	go srv.Serve(l)
	defer srv.Stop()
	tg, port := target(t, l.Addr().String())
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port)}}}
	if ok, out, _ := Check(t.Context(), p, tg); !ok {
		t.Error(out)
	}
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if ok, out, _ := Check(t.Context(), p, tg); ok || !strings.Contains(out, "NOT_SERVING") {
		t.Errorf("not serving: %v %q", ok, out)
	}
}

func TestExec(t *testing.T) {
	tg := Target{Exec: func(ctx context.Context, cmd []string) (int, string, error) {
		if cmd[0] == "hang" {
			<-ctx.Done()
			return 0, "", ctx.Err()
		}
		code, _ := strconv.Atoi(cmd[0])
		return code, "said", nil
	}}
	synctest.Test(t, func(t *testing.T) {
		for cmd, want := range map[string]string{"0": "said", "1": "said", "hang": `command timed out: "hang" timed out after 1s`} {
			p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}}
			if ok, out, err := Check(t.Context(), p, tg); err != nil || ok != (cmd == "0") || out != want {
				t.Errorf("%s: %v %q %v", cmd, ok, out, err)
			}
		}
	})
}

// TestUnasked checks that a runtime that is away says nothing about the container.
func TestUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		tg := Target{Exec: func(context.Context, []string) (int, string, error) {
			if asked++; asked <= 10 {
				return 0, "", errors.New("containerd is away")
			}
			return 1, "sick", nil
		}}
		p := &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		Run(t.Context(), p, tg, true, func(ok bool, output string) bool {
			if ok || output != "sick" {
				t.Errorf("opinion %v, %q", ok, output)
			}
			return false
		}, func(string) {})
		if asked != 13 {
			t.Errorf("condemned after %d questions, of which 10 could not be asked; want 13", asked)
		}
	})
}

func TestRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var asked []time.Duration
		tg := Target{Exec: func(context.Context, []string) (int, string, error) {
			asked = append(asked, time.Since(start))
			return 0, "", nil
		}}
		p := &corev1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 2, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		n := 0
		Run(t.Context(), p, tg, false, func(bool, string) bool { n++; return n < 3 }, func(string) { t.Error("failed") })
		for i, want := range []time.Duration{5, 7, 9} {
			if asked[i] != want*time.Second {
				t.Errorf("asked at %v", asked)
			}
		}
	})
}

package probe

import (
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestHeaders (field log, case 12): the headers that a pod gives take the place of the usual ones, and nothing is added
// that it did not ask for.
func TestHeaders(t *testing.T) {
	var seen http.Header
	var host string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen, host = r.Header.Clone(), r.Host }))
	defer srv.Close()
	tg, port := target(t, srv.Listener.Addr().String())
	for _, c := range []struct {
		why  Purpose
		give []corev1.HTTPHeader
		want http.Header
		host string
	}{
		{Probing, nil, http.Header{"User-Agent": {"kube-probe/1.36"}, "Accept": {"*/*"}}, srv.Listener.Addr().String()},
		{Lifecycle, nil, http.Header{"User-Agent": {"kube-lifecycle/1.36"}, "Accept": {"*/*"}}, srv.Listener.Addr().String()},
		{Probing, []corev1.HTTPHeader{{Name: "user-agent", Value: "mine"}, {Name: "ACCEPT", Value: "text/plain"}, {Name: "Host", Value: "app.test"}},
			http.Header{"User-Agent": {"mine"}, "Accept": {"text/plain"}}, "app.test"},
		{Probing, []corev1.HTTPHeader{{Name: "Accept", Value: ""}, {Name: "X-A", Value: "1"}, {Name: "X-A", Value: "2"}},
			http.Header{"User-Agent": {"kube-probe/1.36"}, "X-A": {"1", "2"}}, srv.Listener.Addr().String()},
		{Probing, []corev1.HTTPHeader{{Name: "Accept-Encoding", Value: "gzip"}},
			http.Header{"User-Agent": {"kube-probe/1.36"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}}, srv.Listener.Addr().String()},
	} {
		if _, _, err := Get(t.Context(), &corev1.HTTPGetAction{Port: intstr.FromInt(port), HTTPHeaders: c.give}, tg, c.why); err != nil {
			t.Fatal(err)
		}
		delete(seen, "Connection")
		if !maps.EqualFunc(seen, c.want, func(a, b []string) bool { return len(a) == len(b) && a[0] == b[0] && a[len(a)-1] == b[len(b)-1] }) || host != c.host {
			t.Errorf("given %v: sent %v to %s, want %v to %s", c.give, seen, host, c.want, c.host)
		}
	}
}

// TestProbeTargets covers a TCP probe's own host, and the service that a gRPC probe names.
func TestProbeTargets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(srv, h)
	go srv.Serve(l)
	defer srv.Stop()
	h.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	tg, port := target(t, l.Addr().String())
	elsewhere := tg
	elsewhere.Host = func() string { return "127.255.255.254" } // nobody listens there
	tcp := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port), Host: "127.0.0.1"}}}
	if ok, out, _ := Check(t.Context(), tcp, elsewhere); !ok {
		t.Errorf("the probe's own host was not asked: %s", out)
	}
	tcp.TCPSocket.Host = ""
	if ok, _, _ := Check(t.Context(), tcp, elsewhere); ok {
		t.Error("something else than the pod was asked")
	}
	for service, want := range map[string]bool{"": true, "sick": false, "unknown": false} {
		p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port), Service: &service}}}
		if ok, out, _ := Check(t.Context(), p, tg); ok != want {
			t.Errorf("service %q: %v, %s", service, ok, out)
		}
	}
}

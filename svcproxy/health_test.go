package svcproxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"petrel.dev/petrel/internal/contain"
)

// checked asks a health check port as a load balancer does.
func checked(t *testing.T, url string) (code int, header http.Header, body string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(url)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, resp.Header, string(b)
}

// TestHealthCheckPort checks that a node says at a Service's health check port how many ready endpoints it has, in kube-proxy's
// words, also when it has none, and as they come and go.
func TestHealthCheckPort(t *testing.T) {
	here, elsewhere := endpoint(netip.MustParseAddrPort("10.42.0.1:8080")), endpoint(netip.MustParseAddrPort("10.42.1.1:8080"))
	here.Node, elsewhere.Node = "here", "elsewhere"
	unready := here
	unready.Addr, unready.Ready = netip.MustParseAddr("10.42.0.2"), false
	table := func(endpoints ...Endpoint) Table {
		s := service("web", "10.43.0.5", web, endpoints...)
		s.LoadBalancer, s.LocalOnlyExternal, s.HealthPort = true, true, 32111
		return Table{Services: []Service{s}}
	}
	p := start(t, Config{})
	for _, c := range []struct {
		endpoints   []Endpoint
		code, local int
	}{
		{nil, 503, 0},
		{[]Endpoint{elsewhere, unready}, 503, 0},
		{[]Endpoint{here, elsewhere, unready, here}, 200, 1},
		{[]Endpoint{elsewhere}, 503, 0},
	} {
		apply(t, p, table(c.endpoints...))
		for _, address := range []string{"192.168.1.7", "127.0.0.1"} {
			code, header, body := checked(t, fmt.Sprintf("http://%s:32111/any/path", address))
			want := fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": true\n}", c.local)
			if code != c.code || body != want || !json.Valid([]byte(body)) || header.Get("Content-Type") != "application/json" ||
				header.Get("X-Load-Balancing-Endpoint-Weight") != fmt.Sprint(c.local) {
				t.Errorf("%d endpoints: %d %v %q, want %d %q", len(c.endpoints), code, header, body, c.code, want)
			}
		}
	}
	resp, err := http.Head("http://192.168.1.7:32111/")
	must(t, err)
	if resp.Body.Close(); resp.StatusCode != 503 {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	if c, err := net.DialTimeout("tcp", "10.43.0.5:32111", time.Second); err == nil {
		c.Close()
		t.Error("the port is open at the cluster's address of the Service")
	}
	plain := table(here)
	plain.Services[0].HealthPort = 0
	apply(t, p, plain)
	if c, err := net.DialTimeout("tcp", "192.168.1.7:32111", time.Second); err == nil {
		c.Close()
		t.Error("the port is open without being asked for")
	}
}

// TestHealthCheckOfAFault checks that a proxy that cannot put its table in force says so to load balancers, although it has
// endpoints.
func TestHealthCheckOfAFault(t *testing.T) {
	to := endpoint(netip.MustParseAddrPort("10.42.0.1:8080"))
	to.Node = "here"
	s := service("web", "10.43.0.5", web, to)
	s.HealthPort = 32112
	p := start(t, Config{})
	apply(t, p, Table{Services: []Service{s}})
	var faults atomic.Int32
	remove := contain.Inject(func(site, _ string) {
		if site == "svcproxy/table" {
			faults.Add(1)
			panic("injected")
		}
	})
	defer remove()
	p.Refresh()
	eventually(t, "the fault", func() bool { return faults.Load() > 0 && p.failed.Load() })
	if code, _, body := checked(t, "http://192.168.1.7:32112"); code != 503 || !strings.Contains(body, `"serviceProxyHealthy": false`) {
		t.Errorf("with a fault: %d %s", code, body)
	}
	remove()
	p.Refresh()
	eventually(t, "no fault", func() bool { return !p.failed.Load() })
	if code, _, body := checked(t, "http://192.168.1.7:32112"); code != 200 {
		t.Errorf("without it: %d %s", code, body)
	}
}

// TestHostileHealthChecks checks that clients that hold connections to a health check port, or send heads without an end, have
// their share of connections and time, and others are answered.
func TestHostileHealthChecks(t *testing.T) {
	to := endpoint(netip.MustParseAddrPort("10.42.0.1:8080"))
	to.Node = "here"
	s := service("web", "10.43.0.5", web, to)
	s.HealthPort = 32113
	p := start(t, Config{budget: budget{conns: 20, flows: 20}})
	apply(t, p, Table{Services: []Service{s}})
	attacker := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}, Timeout: time.Minute}
	for range 100 {
		c, err := attacker.DialContext(t.Context(), "tcp", "192.168.1.7:32113")
		if err != nil {
			continue
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n")
	}
	eventually(t, "the attacker's share is used", func() bool { return p.Stats().TCPRefused > 0 })
	if used, _ := p.connShares.counts(); used > 10 {
		t.Errorf("%d connections of one client, 10 are its share of 20", used)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: neighbour.AsSlice()}, Timeout: time.Minute}
	c, err := d.DialContext(t.Context(), "tcp", "192.168.1.7:32113")
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") { // and the connection ends
		t.Errorf("the neighbour: %q, %v", b, err)
	}
	large, err := d.DialContext(t.Context(), "tcp", "192.168.1.7:32113")
	must(t, err)
	defer large.Close()
	_, err = io.WriteString(large, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", maxHealthRequest-len("GET / HTTP/1.1\r\nX: ")))
	must(t, err)
	if b, err := io.ReadAll(large); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("a head without an end: %q, %v", b, err)
	}
}

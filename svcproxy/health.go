package svcproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// health is what the health check port of a Service answers: a load balancer in front of the cluster asks each node
// whether it has endpoints of a Service whose traffic stays on the node that it comes to. It is immutable.
type health struct {
	namespace, name string
	local           int // ready endpoints on this node
}

const (
	// healthPatience is how long a client may take for its request, and for taking the answer.
	healthPatience = 10 * time.Second
	// maxHealthRequest bounds the head of a request, in bytes. What comes after it is not read.
	maxHealthRequest = 8 << 10
)

// localEndpoints counts the addresses of ready endpoints on a node.
func localEndpoints(s *Service, node string) int {
	ready := map[netip.Addr]struct{}{}
	for _, e := range s.Endpoints {
		if e.Node == node && e.Addr.IsValid() && (e.Ready || s.PublishNotReady) {
			ready[e.Addr.Unmap()] = struct{}{}
		}
	}
	return len(ready)
}

// serveHealth answers one request, whatever its method and path, as kube-proxy does: 200 when the node has endpoints and
// the proxy serves what it was last given, else 503. Then the connection ends, so that a client holds none of its share.
func (p *Proxy) serveHealth(c *net.TCPConn, h *health) {
	if c.SetDeadline(time.Now().Add(healthPatience)) != nil {
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(c, maxHealthRequest)))
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		_ = c.CloseWrite()
		return
	}
	healthy := !p.failed.Load()
	code := http.StatusServiceUnavailable
	if h.local > 0 && healthy {
		code = http.StatusOK
	}
	body := fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %v\n}",
		h.namespace, h.name, h.local, healthy)
	resp := http.Response{
		StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Request: r, Close: true, ContentLength: int64(len(body)),
		Header: http.Header{
			"Content-Type":                     {"application/json"},
			"X-Content-Type-Options":           {"nosniff"},
			"X-Load-Balancing-Endpoint-Weight": {strconv.Itoa(h.local)},
		},
		Body: io.NopCloser(strings.NewReader(body)),
	}
	if resp.Write(c) == nil {
		_ = c.CloseWrite()
	}
}

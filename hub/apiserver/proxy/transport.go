package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Dialer connects to workloads; hub/reach is one. An error that is a Status is the answer to the client.
type Dialer interface {
	DialPod(ctx context.Context, namespace, name string, port int32) (net.Conn, error)
	DialServicePod(ctx context.Context, namespace, name, port string) (net.Conn, error)
	// DialNode connects to what the agent serves; with a port other than 0, to that port of the node.
	DialNode(ctx context.Context, node string, port int32) (net.Conn, error)
}

// Connections are kept for the next request of a page, and no longer: each takes one of its node's streams.
const (
	keepIdle        = 5 * time.Second
	maxIdle         = 64
	maxIdlePerPlace = 4
	maxHeaders      = 256 << 10 // bytes of an answer
)

// newTransport returns a transport whose hosts are places.
func newTransport(d Dialer) *http.Transport {
	dial := func(ctx context.Context, _, address string) (net.Conn, error) {
		p, err := placeOf(address)
		if err != nil {
			return nil, err
		}
		return p.dial(ctx, d)
	}
	return &http.Transport{
		DialContext: dial,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			// As on Kubernetes: nothing says which certificate a workload should have, and the way to it is the cluster's own.
			t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			if err := t.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			return t, nil
		},
		DisableCompression:     true, // what the client did not ask for is not unpacked here
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePerPlace,
		IdleConnTimeout:        keepIdle,
		MaxResponseHeaderBytes: maxHeaders,
	}
}

// place is where connections lead. Those to one place are used for each other's requests.
type place struct{ plural, namespace, name, port string }

// host returns the place as the host of a URL, which leads nowhere but through placeOf: its parts, escaped, by dots.
func (p place) host() string {
	escape := strings.NewReplacer(".", "%2E", "_", "%5F")
	part := func(s string) string {
		return "-" + strings.ReplaceAll(escape.Replace(url.QueryEscape(s)), "%", "_")
	}
	return strings.Join([]string{part(p.port), part(p.name), part(p.namespace), part(p.plural)}, ".")
}

// placeOf returns the place of an address "host:port" that host has made; the port of the scheme is no part of it.
func placeOf(address string) (p place, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return p, err
	}
	parts := strings.Split(host, ".")
	if len(parts) != 4 {
		return p, fmt.Errorf("address %q is no place", address)
	}
	for i, to := range []*string{&p.port, &p.name, &p.namespace, &p.plural} {
		if *to, err = url.QueryUnescape(strings.ReplaceAll(strings.TrimPrefix(parts[i], "-"), "_", "%")); err != nil {
			return p, fmt.Errorf("address %q: %w", address, err)
		}
	}
	return p, nil
}

func (p place) dial(ctx context.Context, d Dialer) (net.Conn, error) {
	if p.plural == "services" {
		return d.DialServicePod(ctx, p.namespace, p.name, p.port)
	}
	port, err := strconv.ParseUint("0"+p.port, 10, 16)
	if err != nil {
		return nil, err
	}
	if p.plural == "nodes" {
		return d.DialNode(ctx, p.name, int32(port))
	}
	return d.DialPod(ctx, p.namespace, p.name, int32(port))
}

package podnet

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/vishvananda/netns"
)

// Dial connects to a port of a network namespace, at host or, without one, on its loopback; an empty path is the node's own
// namespace. A socket belongs to the namespace in which it was made, so only making it happens there.
func Dial(ctx context.Context, path, host string, port int) (conn net.Conn, err error) {
	hosts := []string{host}
	if host == "" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	if path == "" {
		return dialAny(ctx, hosts, port)
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = inNamespace(int(ns), func() (err error) {
		conn, err = dialAny(ctx, hosts, port)
		return err
	})
	return conn, err
}

// dialAny connects to the first of hosts, which are addresses, that accepts.
func dialAny(ctx context.Context, hosts []string, port int) (net.Conn, error) {
	var errs []error
	for _, host := range hosts {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

package podnet

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/vishvananda/netns"
)

// Dial connects to a port on the loopback of a network namespace; an empty path is the node's own. A socket belongs to the
// namespace in which it was made, so only making it happens there.
func Dial(ctx context.Context, path string, port int) (conn net.Conn, err error) {
	if path == "" {
		return dialLoopback(ctx, port)
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = inNamespace(int(ns), func() (err error) {
		conn, err = dialLoopback(ctx, port)
		return err
	})
	return conn, err
}

func dialLoopback(ctx context.Context, port int) (net.Conn, error) {
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

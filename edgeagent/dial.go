package edgeagent

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"

	"github.com/vishvananda/netns"

	"petrel.dev/petrel/internal/wire"
)

// dialInside connects to a port on the loopback of a network namespace. A socket belongs to the namespace in which it
// was made, so only making it happens there, on a thread of its own.
func dialInside(ctx context.Context, path string, port int) (net.Conn, error) {
	if path == "" {
		return dialLoopback(ctx, port)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // not given back: the thread ends with the goroutine
		done <- func() result {
			ns, err := netns.GetFromPath(path)
			if err != nil {
				return result{nil, err}
			}
			defer ns.Close()
			if err := netns.Set(ns); err != nil {
				return result{nil, err}
			}
			conn, err := dialLoopback(ctx, port)
			return result{conn, err}
		}()
	}()
	r := <-done
	return r.conn, r.err
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

// ServeStream serves one stream that the hub has opened to a pod of this node, and closes it.
func (a *Agent) ServeStream(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	a.mu.Lock()
	manager := a.manager
	a.mu.Unlock()
	if manager == nil {
		_ = s.Close(wire.StreamEnd{Reason: "ServiceUnavailable", Message: "the agent is still starting"})
		return
	}
	manager.ServeStream(ctx, req, s)
}

package ctrd

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"petrel.dev/petrel/edgeagent/ctrd/shim"
)

// runTask makes and starts the task of a container. Its shim may be about to go or have died, whatever Turns does: then once more.
func (r *Runtime) runTask(ctx context.Context, podUID string, container client.Container, create cio.Creator) (client.Task, error) {
	left := false // by a shim, with a part of the container maybe
	for try := 0; ; try++ {
		task, err := container.NewTask(ctx, create)
		if err == nil {
			if err = task.Start(ctx); err == nil {
				return task, nil
			}
			_ = r.deleteTask(ctx, podUID, container.ID(), task)
		} else {
			r.awaitShim(r.leaving(ctx, podUID, container.ID()), podUID) // containerd has asked it to
		}
		switch {
		case shimLeaving(err):
			left = true
		case left: // what the try before has left is in the way: no failure of the container's own
			err = fmt.Errorf("%w: %w", errShimLeft, err)
		}
		if !left || try == 5 {
			return nil, err
		}
		time.Sleep(time.Duration(try+1) * 50 * time.Millisecond)
	}
}

// deleteTask deletes the task of a container of a pod and kills what still runs in it. When it was the pod's last, its shim has ended
// afterwards, so that the next container gets another. ctx has the namespace.
func (r *Runtime) deleteTask(ctx context.Context, podUID, id string, task client.Task) error {
	conn := r.leaving(ctx, podUID, id)
	_, err := task.Delete(ctx, client.WithProcessKill)
	if err != nil && !errdefs.IsNotFound(err) {
		if conn != nil {
			_ = conn.Close()
		}
		return err
	}
	r.awaitShim(conn, podUID)
	return nil
}

// leaving connects to the shim of a pod if it is going to end with a container; nil: it is not, or has ended already.
func (r *Runtime) leaving(ctx context.Context, podUID, id string) net.Conn {
	conn := shim.Connect(r.shimSocket(podUID))
	if conn != nil && !r.last(ctx, podUID, id) {
		_ = conn.Close()
		return nil
	}
	return conn
}

// awaitShim returns when a shim has ended, or takes too long; nil: there is none.
func (r *Runtime) awaitShim(conn net.Conn, podUID string) {
	if conn != nil && !shim.AwaitEnd(conn) {
		r.cfg.Log.Warn("shim has not ended with the last container of its pod", "pod", podUID, "waited", shim.LeaveLimit)
	}
}

// last reports whether the shim of a pod serves no container but one, as far as is known.
func (r *Runtime) last(ctx context.Context, podUID, id string) bool {
	list, err := r.client.ContainerService().List(ctx, `labels."`+labelPod+`"==`+strconv.Quote(podUID), `labels."`+labelInit+`"==`+strconv.Quote(podUID))
	if err != nil {
		return false
	}
	for i := range list {
		if _, ended := readExit(list[i].Labels); !ended && list[i].ID != id {
			return false
		}
	}
	return true
}

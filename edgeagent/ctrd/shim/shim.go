// Package shim knows how the containers of a pod share a shim: whose turn it is to start or to delete one, where the shim listens, when it
// has ended, and what shims leave behind. It asks neither containerd nor a shim for anything.
//
// The containers of a pod share one shim. containerd asks it to end with each task that it deletes, and it does when it knows of no
// other; one that it is just making it does not know of yet. So a start beside a deletion can lose its shim half-way. containerd then
// clears away what it finds of that container, and may come too late for what runc has made, or find what a second try has made: the
// container fails, or ends unseen, and is restarted for a reason that is not its own.
package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// State is where every containerd's shims and runc have their state, whatever the directories of containerd itself are.
const State = "/run/containerd"

// LeaveLimit is how long a shim may take to end once it serves no container. One that takes longer may serve the next.
const LeaveLimit = 2 * time.Second

// Socket returns where the shim of a group listens that a containerd has in a namespace. Its name is that of containerd's protocol for shims.
func Socket(containerd, namespace, group string) string {
	sum := sha256.Sum256([]byte(filepath.Join(containerd, namespace, group)))
	return filepath.Join(State, "s", hex.EncodeToString(sum[:]))
}

// RemoveSocket removes the socket of a shim that has ended. containerd's shim looks for one of its own container's name, and leaves that of
// its group, which takes memory until the next boot.
func RemoveSocket(socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket of the shim: %w", err)
	}
	return nil
}

// Connect connects to a shim, of which AwaitEnd then sees the end; nil: it has ended already.
func Connect(socket string) net.Conn {
	conn, err := net.DialTimeout("unix", socket, LeaveLimit)
	if err != nil {
		return nil
	}
	return conn
}

// AwaitEnd closes the connection to a shim when the shim has ended, or has not for LeaveLimit, and reports which. Nothing else uses the
// connection, on which a shim sends only answers.
func AwaitEnd(conn net.Conn) bool {
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(LeaveLimit)); err != nil {
		return false
	}
	_, err := conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// RemoveEmpty removes the directories in root that shims and runc have made for a containerd namespace and have nothing in any more,
// children first, and root itself. They make them again when they need them.
func RemoveEmpty(root, namespace string) error {
	var errs []error
	for _, dir := range []string{filepath.Join("runc", namespace), "runc", "s", "fifo", "."} {
		err := os.Remove(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("state of shims: %w", err))
		}
	}
	return errors.Join(errs...)
}

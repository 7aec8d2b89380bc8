package podnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// sacrifice runs f on a thread that f may move into another namespace. The thread dies afterwards: a thread in a foreign
// namespace must never run other goroutines, and moving it back can fail.
func sacrifice(f func() error) error {
	done := make(chan error, 1)
	go sacrificed(f, done)
	return <-done
}

func sacrificed(f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot die, and /proc/self shows its namespaces to the world. Hold it while another does it.
		done <- sacrifice(f)
		runtime.UnlockOSThread()
		return
	}
	done <- f()
	// No UnlockOSThread: when this goroutine returns, the runtime ends its thread.
}

// inNamespace runs f on a thread inside the namespace of an open file descriptor.
func inNamespace(fd int, f func() error) error {
	return sacrifice(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", explain(err))
		}
		return f()
	})
}

// isNamespace reports whether path is a pinned namespace, rather than the empty file that a reboot leaves of it.
func isNamespace(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}

// pin makes sure that the pod has a namespace and returns its path.
func (n *Network) pin(podUID string) (string, error) {
	path := n.netnsPath(podUID)
	if ok, err := isNamespace(path); ok || err != nil {
		return path, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return "", fmt.Errorf("pin network namespace: %w", err)
	}
	_ = f.Close()
	err = sacrifice(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", explain(err))
		}
		podDefaults()
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin network namespace at %s: %w", path, explain(err))
		}
		return nil
	})
	if err != nil {
		_ = os.Remove(path)
		return "", err
	}
	return path, nil
}

// podDefaults sets, in a new pod's namespace, what container users expect of it: an unprivileged process may listen
// on port 80 and ping. A kernel without the setting goes without.
func podDefaults() {
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
	// The node is the only router; another pod on the bridge is none, whatever it advertises.
	for _, key := range []string{"accept_ra", "accept_redirects", "autoconf"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/"+key, []byte("0"), 0)
	}
	// Addresses are unique by allocation; waiting for duplicate detection would delay the start of every pod.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
}

// unpin lets a namespace go. A mount that is stacked twice (two agents raced) goes as a whole.
func unpin(path string) error {
	for {
		ok, err := isNamespace(path)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, explain(err))
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// explain adds the way out to the kernel's two usual refusals.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (the agent needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN)", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w (this kernel lacks it; load or build the bridge, veth and vxlan modules)", err)
	}
	return err
}

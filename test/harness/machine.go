package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is a simulated machine: a network namespace with one interface on the test's LAN. The empty name is this one.
type Machine struct {
	NS string
	IP string
}

// Here is the machine that the test runs on; its processes listen on loopback.
var Here = Machine{IP: "127.0.0.1"}

func (m Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if m.NS == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + m.NS, name}, args...)...)
}

// LAN makes a switch and n machines on it: 10.99.0.1, .2, ... The test's end removes all of it.
func LAN(t *testing.T, name string, n int) []Machine {
	t.Helper()
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	sw := "pte-" + checkout() + "-" + name
	var machines []Machine
	t.Cleanup(func() {
		for _, m := range machines {
			exec.Command("ip", "netns", "del", m.NS).Run()
		}
		exec.Command("ip", "netns", "del", sw).Run()
	})
	exec.Command("ip", "netns", "del", sw).Run() // of an earlier run that was killed
	ip("netns", "add", sw)
	ip("-n", sw, "link", "add", "br0", "type", "bridge")
	ip("-n", sw, "link", "set", "br0", "up")
	for i := range n {
		m := Machine{NS: fmt.Sprintf("%s-%d", sw, i+1), IP: fmt.Sprintf("10.99.0.%d", i+1)}
		exec.Command("ip", "netns", "del", m.NS).Run()
		ip("netns", "add", m.NS)
		machines = append(machines, m)
		port := fmt.Sprintf("p%d", i+1)
		ip("-n", sw, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", m.NS)
		ip("-n", sw, "link", "set", port, "master", "br0", "up")
		ip("-n", m.NS, "link", "set", "lo", "up")
		ip("-n", m.NS, "addr", "add", m.IP+"/24", "dev", "eth0")
		ip("-n", m.NS, "link", "set", "eth0", "up")
		ip("-n", m.NS, "route", "add", "default", "via", "10.99.0.254") // nobody there: only so that there is a default route
	}
	return machines
}

// Unplug takes a machine off the LAN's switch without anybody's interface noticing: packets just vanish. plug undoes it.
func (m Machine) Unplug(t *testing.T) { m.port(t, "nomaster") }

func (m Machine) Plug(t *testing.T) { m.port(t, "master", "br0") }

func (m Machine) port(t *testing.T, args ...string) {
	t.Helper()
	i := strings.LastIndexByte(m.NS, '-')
	cmd := exec.Command("ip", append([]string{"-n", m.NS[:i], "link", "set", "p" + m.NS[i+1:]}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

// Inside runs f with the network of the machine, or of a process, e.g. one of a pod. Sockets that f makes stay there.
// f must not start goroutines that make sockets.
func (m Machine) Inside(t *testing.T, f func() error) {
	t.Helper()
	if err := inNetwork("/run/netns/"+m.NS, f); err != nil {
		t.Fatal(err)
	}
}

// InsidePod is Inside with the network of a pod's process.
func InsidePod(pid int, f func() error) error {
	return inNetwork(fmt.Sprintf("/proc/%d/ns/net", pid), f)
}

func inNetwork(path string, f func() error) error {
	got := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and nobody else gets it
		n, err := os.Open(path)
		if err == nil {
			err = unix.Setns(int(n.Fd()), unix.CLONE_NEWNET)
			n.Close()
		}
		if err == nil {
			err = f()
		}
		got <- err
	}()
	return <-got
}

// Listen opens a port on a machine, from within this process.
func (m Machine) Listen(t *testing.T, port string) (l net.Listener) {
	t.Helper()
	m.Inside(t, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(m.IP, port))
		return err
	})
	return l
}

// Fetch gets a URL from a machine.
func Fetch(on Machine, url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := on.Command(ctx, Petrel, "fetch", url).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w: %s", url, err, out)
	}
	return string(out), nil
}

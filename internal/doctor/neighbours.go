package doctor

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// rivals are programs that manage this machine's containers, networks and the hub's port as Petrel does: not both. Names are those
// that the kernel has of them, of at most 15 bytes.
var rivals = []string{"k3s-server", "k3s-agent", "k3s", "kubelet", "kubelite", "k0s", "rke2", "kube-apiserver", "kube-proxy", "flanneld", "edgecore"}

// guests run containers too, and leave those of others alone.
var guests = []string{"dockerd", "containerd", "crio", "podman"}

// running returns which of the programs run here.
func (m Machine) running(programs []string) (found []string) {
	for _, file := range m.glob("proc/[0-9]*/comm") {
		if name := m.text(file); slices.Contains(programs, name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// neighbours looks for other programs that manage containers.
func neighbours(m Machine) Finding {
	if found := m.running(rivals); len(found) > 0 {
		return Finding{Result: Fail, What: strings.Join(found, ", ") + " runs here: it makes the same networks and takes the same ports",
			Do: "uninstall it first (k3s: k3s-uninstall.sh or k3s-agent-uninstall.sh; kubeadm: kubeadm reset)"}
	}
	if dir := m.otherAgent(); dir != "" {
		return Finding{Result: Fail, What: "another agent of Petrel runs here, with its data in " + dir + ": both make the same bridge and rules",
			Do: "stop that one (`petrel uninstall agent`, where it is a service), or give this one its --data-dir"}
	}
	if found := m.running(guests); len(found) > 0 {
		return Finding{Result: OK, What: strings.Join(found, ", ") + " runs here, and is left alone"}
	}
	return Finding{Result: OK, What: "none"}
}

// port looks whether the hub's port is free.
func port(m Machine) Finding {
	if !m.listens(m.Port) {
		return Finding{Result: OK, What: fmt.Sprintf("%d is free", m.Port)}
	}
	// The kernel says who listens only to root, and in more places than are worth looking at.
	if len(m.running([]string{"petrel"})) > 0 {
		return Finding{Result: OK, What: fmt.Sprintf("%d is in use, and petrel runs here already", m.Port)}
	}
	return Finding{Result: Fail, What: fmt.Sprintf("another program listens on port %d", m.Port),
		Do: fmt.Sprintf("see which with `ss -ltnp sport = :%d` and stop it, or choose another port with --listen", m.Port)}
}

// listens reports whether a socket of the machine listens on the TCP port. Lines of the kernel's table have the local address as
// ADDRESS:PORT and the state, both in hexadecimal; 0A is listening.
func (m Machine) listens(port uint16) bool {
	for _, table := range []string{"tcp", "tcp6"} {
		for line := range strings.Lines(m.text(path.Join("proc/net", table))) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "0A" {
				continue
			}
			_, local, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(local, 16, 16); err == nil && uint16(n) == port {
				return true
			}
		}
	}
	return false
}

// otherAgent returns the data directory of an agent that runs here with another one than this machine is to have; empty: none does.
// Only those that have it on their command line are found: what is in a file of settings is that of the service, which is this one.
func (m Machine) otherAgent() string {
	for _, file := range m.glob("proc/[0-9]*/cmdline") {
		args := strings.Split(m.text(file), "\x00")
		if path.Base(args[0]) != "petrel" || len(args) < 2 || args[1] != "agent" && args[1] != "up" {
			continue
		}
		for i, a := range args {
			dir, ok := strings.CutPrefix(a, "--data-dir=")
			if a == "--data-dir" && i+1 < len(args) {
				dir, ok = args[i+1], true
			}
			if ok && path.Clean(dir) != path.Clean(m.DataDir) {
				return path.Clean(dir)
			}
		}
	}
	return ""
}

// vxlanPort is where nodes that share no network send each other the packets of pods (RFC 7348).
const vxlanPort = 4789

// tunnelPort looks whether a program has taken the port. The kernel's own sockets, which VXLAN devices share, have no inode.
func tunnelPort(m Machine) Finding {
	for _, table := range []string{"udp", "udp6"} {
		for line := range strings.Lines(m.text(path.Join("proc/net", table))) {
			f := strings.Fields(line)
			if len(f) < 10 || f[9] == "0" {
				continue
			}
			_, local, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(local, 16, 16); err == nil && n == vxlanPort {
				return Finding{Result: Fail, What: fmt.Sprintf("a program has UDP port %d, where packets of pods on other nodes come in", vxlanPort),
					Do: fmt.Sprintf("see which with `ss -lnup sport = :%d` and stop it", vxlanPort)}
			}
		}
	}
	return Finding{Result: OK, What: fmt.Sprintf("UDP %d is free for VXLAN", vxlanPort)}
}

package node

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// meminfo is /proc/meminfo, in bytes.
func meminfo(root string) (map[string]int64, error) {
	b, err := os.ReadFile(root + "/proc/meminfo")
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			continue
		}
		if len(f) > 1 && f[1] == "kB" {
			n <<= 10
		}
		out[name] = n
	}
	if out["MemTotal"] == 0 {
		return nil, fmt.Errorf("%s/proc/meminfo tells no MemTotal", root)
	}
	return out, nil
}

func readInt(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
}

// systemInfo identifies the machine and its software.
func systemInfo(root string) corev1.NodeSystemInfo {
	info := corev1.NodeSystemInfo{
		Architecture: runtime.GOARCH, OperatingSystem: "linux", OSImage: osImage(root),
		MachineID: readText(root + "/etc/machine-id"), SystemUUID: readText(root + "/sys/class/dmi/id/product_uuid"),
		BootID: readText(root + "/proc/sys/kernel/random/boot_id"), KernelVersion: readText(root + "/proc/sys/kernel/osrelease"),
	}
	if info.MachineID == "" {
		info.MachineID = readText(root + "/var/lib/dbus/machine-id")
	}
	if info.SystemUUID == "" {
		info.SystemUUID = readText(root + "/proc/device-tree/serial-number")
	}
	if info.SystemUUID == "" {
		info.SystemUUID = info.MachineID
	}
	if info.KernelVersion == "" {
		var u unix.Utsname
		if unix.Uname(&u) == nil {
			info.KernelVersion = unix.ByteSliceToString(u.Release[:])
		}
	}
	return info
}

func osImage(root string) string {
	for line := range strings.Lines(readText(root + "/etc/os-release")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "Linux"
}

// findAddresses finds the node's addresses: those given, or the source of the default route of each family, or the
// first global address of a real interface.
func (n *Node) findAddresses() {
	list := n.cfg.Addresses
	if len(list) == 0 {
		list = defaultAddresses(n.cfg.Bridge)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(list) > 0 || n.addresses == nil { // a node keeps its last address while its cable is out
		n.addresses = list
	}
}

func defaultAddresses(bridge string) []netip.Addr {
	var out []netip.Addr
	for _, r := range []struct {
		file          string
		fields        int
		dest, mask    int // of the destination and its length or mask
		metric, iface int
		six           bool
	}{
		{"/proc/self/net/route", 11, 1, 7, 6, 0, false},
		{"/proc/self/net/ipv6_route", 10, 0, 1, 5, 9, true},
	} {
		best, metric := "", uint64(math.MaxUint64)
		for line := range strings.Lines(readText(r.file)) {
			f := strings.Fields(line)
			if len(f) < r.fields || strings.Trim(f[r.dest], "0") != "" || strings.Trim(f[r.mask], "0") != "" || f[r.iface] == "lo" {
				continue
			}
			base := 10
			if r.six {
				base = 16
			}
			if m, err := strconv.ParseUint(f[r.metric], base, 64); err == nil && m < metric {
				best, metric = f[r.iface], m
			}
		}
		if link, err := net.InterfaceByName(best); err == nil {
			if a, ok := addressOf(link, r.six); ok {
				out = append(out, a)
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for i := range links {
		if l := &links[i]; l.Flags&net.FlagUp != 0 && l.Flags&net.FlagLoopback == 0 && l.Name != bridge && !virtual(l.Name) {
			if a, ok := addressOf(l, false); ok {
				return []netip.Addr{a}
			}
		}
	}
	return nil
}

// virtual reports whether software has made an interface for containers: its addresses are not the node's.
func virtual(name string) bool {
	for _, p := range []string{"petrel", "docker", "cni", "br-", "flannel", "cali", "tunl", "kube", "virbr", "lxc"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func addressOf(link *net.Interface, six bool) (netip.Addr, bool) {
	addrs, err := link.Addrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() == six && p.Addr().IsGlobalUnicast() {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

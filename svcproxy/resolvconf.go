package svcproxy

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// recheck is how often, at most, a question looks whether the host's resolver configuration has changed.
const recheck = 5 * time.Second

// systemdUplinks is where systemd-resolved lists the servers behind its stub.
const systemdUplinks = "/run/systemd/resolve/resolv.conf"

// serverList is the upstream servers, as the host's configuration says now. It costs nothing while nobody asks.
type serverList struct {
	fixed   []netip.AddrPort
	path    string
	uplinks string
	self    netip.Addr

	mu      sync.Mutex
	checked time.Time
	seen    [2]fileStamp
	servers []netip.AddrPort
}

// fileStamp distinguishes two states of a file.
type fileStamp struct {
	size  int64
	mtime time.Time
}

func newServerList(cfg Config) *serverList {
	path := cfg.ResolvConf
	if path == "" {
		path = "/etc/resolv.conf"
	}
	return &serverList{fixed: cfg.Upstream, path: path, uplinks: systemdUplinks, self: cfg.DNSAddr}
}

// current returns the servers to ask, in order.
func (l *serverList) current(now time.Time) []netip.AddrPort {
	if len(l.fixed) > 0 {
		return l.fixed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.checked.IsZero() && now.Sub(l.checked) < recheck && now.After(l.checked) {
		return l.servers
	}
	l.checked = now
	stamps := [2]fileStamp{stamp(l.path), stamp(l.uplinks)}
	if stamps == l.seen && l.servers != nil {
		return l.servers
	}
	l.seen = stamps
	main, _ := os.ReadFile(l.path)
	uplinks, _ := os.ReadFile(l.uplinks)
	l.servers = upstreams(main, uplinks, l.self)
	return l.servers
}

func stamp(path string) fileStamp {
	st, err := os.Stat(path)
	if err != nil {
		return fileStamp{size: -1}
	}
	return fileStamp{st.Size(), st.ModTime()}
}

// upstreams picks the servers out of resolv.conf: not ourselves, and instead of systemd-resolved's stub the servers
// behind it, since the stub may be configured to ask us. Other servers on loopback (dnsmasq) are fine: we run on
// the host too.
func upstreams(main, uplinks []byte, self netip.Addr) []netip.AddrPort {
	stub := netip.MustParseAddr("127.0.0.53")
	own := func(a netip.AddrPort) bool { return a.Addr() == self }
	servers := slices.DeleteFunc(nameservers(main), own)
	isStub := func(a netip.AddrPort) bool { return a.Addr() == stub }
	if !slices.ContainsFunc(servers, isStub) {
		return servers
	}
	behind := slices.DeleteFunc(slices.DeleteFunc(nameservers(uplinks), own), isStub)
	if len(behind) == 0 {
		return servers
	}
	return append(slices.DeleteFunc(servers, isStub), behind...)
}

// nameservers reads the nameserver lines of a resolv.conf.
func nameservers(conf []byte) []netip.AddrPort {
	var out []netip.AddrPort
	for s := bufio.NewScanner(bytes.NewReader(conf)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil {
			continue
		}
		if ap := netip.AddrPortFrom(a.Unmap(), dnsPort); !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out
}

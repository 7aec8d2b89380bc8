package podnet

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		cidr             string
		capacity         uint32
		gateway, a1, max string
	}{
		{"10.42.3.0/24", 253, "10.42.3.1", "10.42.3.2", "10.42.3.254"},
		{"10.42.3.128/25", 125, "10.42.3.129", "10.42.3.130", "10.42.3.254"},
		{"10.42.3.4/30", 1, "10.42.3.5", "10.42.3.6", "10.42.3.6"},
		{"10.0.0.0/8", 65533, "10.0.0.1", "10.0.0.2", "10.0.255.254"},
		{"fd00:42::/64", 65534, "fd00:42::1", "fd00:42::2", "fd00:42::ffff"},
		{"fd00:42::/126", 2, "fd00:42::1", "fd00:42::2", "fd00:42::3"},
	} {
		p := netip.MustParsePrefix(c.cidr)
		if n := capacity(p); n != c.capacity {
			t.Errorf("%s: capacity %d, want %d", c.cidr, n, c.capacity)
		}
		got := fmt.Sprint(gateway(p), nth(p, 0), nth(p, capacity(p)-1))
		if want := fmt.Sprint(netip.MustParseAddr(c.gateway), netip.MustParseAddr(c.a1), netip.MustParseAddr(c.max)); got != want {
			t.Errorf("%s: %s, want %s", c.cidr, got, want)
		}
	}
}

// Pods come and go, the agent restarts, a power cut empties a record: no two pods ever share an address, and one that
// is there keeps its own.
func TestAddressesAreUniqueAndStable(t *testing.T) {
	base, err := os.MkdirTemp("/dev/shm", "petrel-ipam-") // thousands of fsyncs are not the point here
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		newNet := func() *Network {
			n := New(Config{StateDir: dir})
			n.podCIDRs = prefixes("10.42.0.0/28", "fd00:42::/124")
			return n
		}
		n := newNet()
		if err := os.MkdirAll(n.ipamDir(), 0o700); err != nil {
			r.Fatal(err)
		}
		has := map[string][]netip.Addr{}
		pod := rapid.Custom(func(r *rapid.T) string { return fmt.Sprint("pod-", rapid.IntRange(0, 20).Draw(r, "n")) })
		r.Repeat(map[string]func(*rapid.T){
			"attach": func(r *rapid.T) {
				uid := pod.Draw(r, "uid")
				ips, err := n.allocate(uid)
				if err != nil {
					if len(has) < 13 {
						r.Fatalf("refused with %d of 13 in use: %v", len(has), err)
					}
					return
				}
				if old := has[uid]; old != nil && fmt.Sprint(old) != fmt.Sprint(ips) {
					r.Fatalf("%s had %v and now has %v", uid, old, ips)
				}
				has[uid] = ips
			},
			"detach": func(r *rapid.T) {
				uid := pod.Draw(r, "uid")
				if err := n.release(uid); err != nil {
					r.Fatal(err)
				}
				delete(has, uid)
			},
			"restart": func(r *rapid.T) { n = newNet() },
			"power cut while recording": func(r *rapid.T) {
				if err := os.WriteFile(filepath.Join(n.ipamDir(), ".new-123"), []byte("po"), 0o600); err != nil {
					r.Fatal(err)
				}
			},
			"": func(r *rapid.T) {
				seen := map[netip.Addr]string{}
				for uid, ips := range has {
					if len(ips) != 2 || !n.podCIDRs[0].Contains(ips[0]) || !n.podCIDRs[1].Contains(ips[1]) {
						r.Fatalf("%s has %v", uid, ips)
					}
					for _, ip := range ips {
						if ip == gateway(n.podCIDRs[0]) || ip == gateway(n.podCIDRs[1]) || seen[ip] != "" {
							r.Fatalf("%s has %v, which %q has", uid, ip, seen[ip])
						}
						seen[ip] = uid
					}
				}
				owners, err := n.owners()
				if err != nil || len(owners) != len(seen) {
					r.Fatalf("records %v, error %v, want %v", owners, err, seen)
				}
			},
		})
	})
}

// With another podCIDR (the node joined again), pods get addresses in it, and the old ones are free.
func TestAddressFollowsPodCIDR(t *testing.T) {
	n := New(Config{StateDir: t.TempDir()})
	must(t, os.MkdirAll(n.ipamDir(), 0o700))
	n.podCIDRs = prefixes("10.42.0.0/24")
	_, err := n.allocate("pod")
	must(t, err)
	n.podCIDRs = prefixes("10.42.7.0/24")
	ips, err := n.allocate("pod")
	must(t, err)
	owners, err := n.owners()
	must(t, err)
	if !n.podCIDRs[0].Contains(ips[0]) || len(owners) != 1 || owners[ips[0]] != "pod" {
		t.Errorf("address %v, records %v", ips, owners)
	}
}

func TestUIDsAreHarmless(t *testing.T) {
	for _, uid := range []string{"", ".", "..", "../x", "a/b", "x\ny", ".new-1"} {
		if checkUID(uid) == nil {
			t.Errorf("%q is taken for a UID", uid)
		}
	}
	if err := checkUID("3f0c0c4e-6a0e-4a44-9d1d-0e4b9f6c2f11"); err != nil {
		t.Error(err)
	}
}

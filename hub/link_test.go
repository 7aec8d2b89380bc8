package hub

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

// TestReachable checks which addresses of a machine nodes get to dial: those of pods are none, as of the bridge that an agent beside the
// hub has made.
func TestReachable(t *testing.T) {
	var addrs []net.Addr
	for _, text := range []string{"127.0.0.1/8", "10.42.0.1/24", "2001:db8::5/64", "fe80::1/64", "192.168.1.7/24", "10.98.0.1/24", "::1/128"} {
		ip, network, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	want := []string{"192.168.1.7", "10.98.0.1", "2001:db8::5"}
	if got := reachable(addrs, netip.MustParsePrefix("10.42.0.0/16")); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := reachable(addrs[:2], netip.MustParsePrefix("10.42.0.0/16")); !slices.Equal(got, []string{"10.42.0.1"}) {
		t.Errorf("a hub in a pod of another cluster: %q", got)
	}
}

package control

import "net/netip"

// EndpointAddress parses an address, and reports whether the API takes it as an endpoint's: a unicast address that other
// machines can reach, not an IPv4 address written as IPv6.
func EndpointAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, false
	}
	return a, !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

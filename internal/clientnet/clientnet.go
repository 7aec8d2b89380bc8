// Package clientnet says what counts as one client when all that is known of it is its address. Whatever is bounded per client
// (connections of devices that a hub does not know, connections and flows of a service proxy) is bounded by this.
package clientnet

import "net/netip"

// Of returns the network that an address stands for: an IPv4 address itself, and of an IPv6 address its first 64 bits, of which one
// machine has all addresses. IPv4 in IPv6 is IPv4, and zones do not count. The zero Prefix is what is no address.
func Of(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

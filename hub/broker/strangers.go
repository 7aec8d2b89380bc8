package broker

import (
	"fmt"
	"net"
	"net/netip"

	"petrel.dev/petrel/internal/clientnet"
)

// Network returns the network by which connections of unknown devices are counted: the peer's address, for IPv6 its first 64 bits,
// which each customer of a provider has at least. It is the zero Prefix for what is not TCP.
func Network(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return clientnet.Of(tcp.AddrPort().Addr())
}

// admitStranger gives the connection of an unknown device one of the few places for such. When they are taken, it closes the oldest
// connection from the network that has most of them, unless the new one comes from there too. b.mu is held.
func (b *Broker) admitStranger(c *conn) error {
	from := map[netip.Prefix]int{}
	for s := range b.strangers {
		if b.known(s.node) { // has joined meanwhile
			delete(b.strangers, s)
			continue
		}
		from[s.from]++
	}
	if from[c.from] >= maxPerAddress {
		return fmt.Errorf("%d connections of devices that this hub does not know come from %s already", maxPerAddress, c.from)
	}
	if len(b.strangers) >= maxStrangers {
		most := c.from
		for f, n := range from {
			if n > from[most]+1 || n > from[most] && most != c.from {
				most = f
			}
		}
		if most == c.from {
			return fmt.Errorf("%d connections of devices that this hub does not know are the limit", maxStrangers)
		}
		b.evict(most)
	}
	b.strangers[c] = struct{}{}
	return nil
}

// evict closes the oldest connection of a stranger from a network.
func (b *Broker) evict(from netip.Prefix) {
	var oldest *conn
	for s := range b.strangers {
		if s.from == from && (oldest == nil || s.since.Before(oldest.since)) {
			oldest = s
		}
	}
	if oldest != nil {
		delete(b.strangers, oldest)
		oldest.cut()
	}
}

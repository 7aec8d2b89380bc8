package svcproxy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Socket is an open socket in the service networks.
type Socket struct {
	Protocol Protocol
	Addr     netip.Addr
	Port     uint16 // where clients send to
	At       uint16 // where it listens: another than Port when a program of the node has Port on all addresses
}

// sockets lists the open ones in the service networks, sorted.
func (p *Proxy) sockets() []Socket {
	var out []Socket
	for key, l := range p.listeners {
		if p.isService(key.addr.Addr()) {
			out = append(out, Socket{key.proto, key.addr.Addr(), key.addr.Port(), l.at()})
		}
	}
	if p.dns != nil && p.isService(p.cfg.DNSAddr) {
		for proto, s := range p.dns.sockets {
			out = append(out, Socket{proto, p.cfg.DNSAddr, dnsPort, s.at()})
		}
	}
	slices.SortFunc(out, func(a, b Socket) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

// publish says which sockets are open in the service networks, and notes those that nobody is led to. It reports whether to
// try again.
func (p *Proxy) publish(found map[string]Problem) (again bool) {
	if p.cfg.Sockets == nil {
		return false
	}
	now := p.sockets()
	if p.published == nil || p.leads != nil || !slices.Equal(now, p.published) {
		p.published = append([]Socket{}, now...)
		p.leads = p.cfg.Sockets(now)
	}
	if p.leads == nil {
		return false
	}
	for _, s := range now {
		if s.At == s.Port {
			continue
		}
		key := listenKey{s.Protocol, netip.AddrPortFrom(s.Addr, s.Port)}
		owner := p.ownerOf(key)
		if owner == "" {
			owner = "cluster DNS"
		}
		note(found, key, owner, "another program on this node has the port on all addresses, and clients cannot be led past it: "+
			p.leads.Error()+"; stop it, let it listen on its own address only, or change the port of the Service")
		again = true
	}
	return again
}

package hub

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/broker"
	"petrel.dev/petrel/hub/dispatch"
	"petrel.dev/petrel/hub/dispatch/linkkeys"
	"petrel.dev/petrel/hub/reach"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// openLink makes the hub's end of the links: the bus on which nodes are reached, and the dispatcher that uses it.
func (h *Hub) openLink() error {
	keys, err := linkkeys.Load(filepath.Join(h.cfg.DataDir, "pki", "link.json"))
	if err != nil {
		return err
	}
	var bus dispatch.Bus
	if h.cfg.Broker == "" {
		b, err := broker.New(broker.Config{Cluster: keys.ClusterID, Log: h.part("broker")})
		if err != nil {
			return err
		}
		bus, h.mqtt, h.busHealth = b, b.ServeConn, b.Health
	} else {
		b, err := broker.NewExternal(broker.ExternalConfig{URL: h.cfg.Broker, Cluster: keys.ClusterID, Log: h.part("broker")})
		if err != nil {
			return err
		}
		h.mqtt = func(c net.Conn) { c.Close() } // agents of this hub connect to the external broker
		bus, h.busHealth = b, b.Health
	}
	h.cluster = jointoken.Cluster{ID: keys.ClusterID, Addresses: h.addresses(), Pin: h.pki.ServerSPKI(), Key: keys.Static.Public}
	h.published = []kube.Object{jointoken.ToConfigMap(h.cluster)}
	if h.cfg.Broker != "" {
		h.cluster.Broker = h.cfg.Broker
		h.published = append(h.published, jointoken.BrokerSecret(h.cfg.Broker))
	}
	h.dispatch, err = dispatch.New(dispatch.Config{
		Client:    h.registry.ClientAs(auth.Dispatcher),
		Bus:       bus,
		Tokens:    h.pki.Tokens(),
		Keys:      keys,
		Addresses: h.addresses(),
		History:   h.history,
		Settings: wire.Settings{
			PodCIDR: h.cfg.ClusterCIDR.String(), ServiceCIDR: h.cfg.ServiceCIDR.String(),
			DNSAddress: h.cfg.dnsAddr().String(), ClusterDomain: h.cfg.Domain,
		},
		Log: h.part("dispatch"),
	})
	if err != nil {
		return err
	}
	h.reach = reach.New(reach.Config{Objects: h.objects, Nodes: h.dispatch})
	h.openMetrics()
	return h.openAggregate()
}

// history returns the store's history and its current revision, 0 when the store cannot be read: the dispatcher then relies on what
// it has seen, and nodes keep what they have.
func (h *Hub) history() (string, uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), storePatience)
	defer cancel()
	rev, err := h.db.Revision(ctx)
	if err != nil {
		h.log.Warn("store revision could not be read: nodes keep what they have", "error", err)
	}
	return h.db.History(), uint64(rev)
}

// hosts returns where others reach this hub: what the operator advertises, otherwise the listening address, otherwise every
// address of this machine that another one may reach, and loopback for those beside the hub.
func (h *Hub) hosts() []string {
	if len(h.cfg.Advertise) > 0 {
		return h.cfg.Advertise
	}
	if host, _, _ := net.SplitHostPort(h.listener.Addr().String()); host != "::" && host != "0.0.0.0" {
		return []string{host}
	}
	addrs, _ := net.InterfaceAddrs() // without them nodes elsewhere find the hub by --advertise only
	return append(reachable(addrs, h.cfg.ClusterCIDR), "127.0.0.1")
}

// addresses returns where agents dial.
func (h *Hub) addresses() []string {
	out := make([]string, len(h.hosts()))
	for i, host := range h.hosts() {
		out[i] = net.JoinHostPort(host, h.portNumber())
	}
	return out
}

// localAddress returns where an agent on this machine dials.
func (h *Hub) localAddress() string {
	host, port, _ := net.SplitHostPort(h.listener.Addr().String())
	if host == "::" || host == "0.0.0.0" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// reachable returns the global unicast addresses of this machine, IPv4 first. Those of pods are left out: the bridge of an agent beside
// this hub has one, which another machine may have too. A machine that has no others is itself a pod, of another cluster.
func reachable(addrs []net.Addr, pods netip.Prefix) []string {
	var v4, v6 []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil || !p.Addr().IsGlobalUnicast() || pods.Contains(p.Addr()):
		case p.Addr().Is4():
			v4 = append(v4, p.Addr().String())
		default:
			v6 = append(v6, p.Addr().String())
		}
	}
	if len(v4)+len(v6) == 0 && pods.IsValid() {
		return reachable(addrs, netip.Prefix{})
	}
	return append(v4, v6...)
}

package edgeagent

import (
	"petrel.dev/petrel/edgeagent/podnet"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/svcproxy"
)

// portsChanged is called by pods' workers.
func (a *Agent) portsChanged() { contain.Go(a.log, "agent/proxy", a.nodeName, a.applyProxy) }

// applyProxy hands Services and host ports to the proxy.
func (a *Agent) applyProxy() {
	a.mu.Lock()
	set, manager, proxy := a.set, a.manager, a.proxy
	a.mu.Unlock()
	if manager == nil {
		return
	}
	proxy.Apply(svcproxy.Table{Services: set.Services, HostPorts: manager.HostPorts()})
}

// serviceSockets are the proxy's sockets as podnet wants them.
func serviceSockets(open []svcproxy.Socket) []podnet.ServiceSocket {
	out := make([]podnet.ServiceSocket, 0, len(open))
	for _, s := range open {
		out = append(out, podnet.ServiceSocket{Addr: s.Addr, UDP: s.Protocol == svcproxy.UDP, Port: s.Port, At: s.At})
	}
	return out
}

// problems is what does not work in the node's network: rules that the kernel refuses, ports that others have.
func (a *Agent) problems() []string {
	a.mu.Lock()
	network, proxy, running := a.network, a.proxy, a.manager != nil
	a.mu.Unlock()
	if !running {
		return nil
	}
	out := network.NodeProblems()
	for _, p := range proxy.Problems() {
		out = append(out, p.Listener+" of "+p.Service+": "+p.Reason)
	}
	return out
}

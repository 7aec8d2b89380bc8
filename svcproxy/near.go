package svcproxy

import "slices"

// nearness returns which ready endpoints of a port clients on this node should use, by Kubernetes' rules for hints: those hinted for the
// node, if every ready endpoint is hinted for a node and at least one for this; otherwise those hinted for its zone, under the same
// condition; otherwise all. So a hint that is missing, or a zone without an endpoint, refuses nobody.
func nearness(s *Service, port Port, node, zone string) func(*Endpoint) bool {
	nodes, zones := hinted{all: true}, hinted{all: true}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if e.Ports[port.Name] == 0 || !e.Addr.IsValid() || !e.Ready && !s.PublishNotReady {
			continue
		}
		nodes.add(e.Nodes, node)
		zones.add(e.Zones, zone)
	}
	switch {
	case nodes.all && nodes.here:
		return func(e *Endpoint) bool { return slices.Contains(e.Nodes, node) }
	case zones.all && zones.here:
		return func(e *Endpoint) bool { return slices.Contains(e.Zones, zone) }
	}
	return func(*Endpoint) bool { return true }
}

// hinted is whether all of some endpoints have hints, and one is hinted for here.
type hinted struct{ all, here bool }

func (h *hinted) add(hints []string, here string) {
	h.all = h.all && len(hints) > 0
	h.here = h.here || slices.Contains(hints, here)
}

package hub

import "petrel.dev/petrel/hub/apiserver"

// checks returns what /readyz checks. Without its store or its feed of changes a hub serves nothing that can be relied on, and
// without its own broker it reaches no node. An external broker that is away is the fault of another machine, which neither a
// restart of the hub nor its removal from a load balancer would repair: the API goes on serving, and only /readyz/broker fails.
func (h *Hub) checks() []apiserver.Check {
	return []apiserver.Check{
		{Name: "store", Health: h.db.Health},
		{Name: "feed", Health: h.objects.Health},
		{Name: "broker", Health: h.busHealth, Advisory: h.cfg.Broker != ""},
	}
}

package hub

import "petrel.dev/petrel/hub/apiserver"

// checks are what /readyz looks at. Without its store or its feed of changes a hub serves nothing that can be relied on, and
// without its own broker it is not whole. An external broker that is away is another machine's fault, which a restart of
// the hub, or leaving it out of a load balancer, does not heal: the API serves on, and /readyz/broker says so.
func (h *Hub) checks() []apiserver.Check {
	return []apiserver.Check{
		{Name: "store", Health: h.db.Health},
		{Name: "feed", Health: h.objects.Health},
		{Name: "broker", Health: h.busHealth, Advisory: h.cfg.Broker != ""},
	}
}

package dispatch

import (
	"maps"

	"petrel.dev/petrel/internal/kube"
)

// AgentPanics returns how many panics each node's agent has contained since it started, by node, as the agents last
// reported. Nodes without any are left out; after a start of the hub a node comes when it has linked again.
func (d *Dispatch) AgentPanics() map[string]uint64 { return d.in.agentPanics() }

// setPanics notes what a node reports. A node without panics costs no memory.
func (i *intake) setPanics(node string, n uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n == 0 {
		delete(i.panics, node)
	} else {
		i.panics[node] = n
	}
}

// agentPanics also forgets the nodes that are gone.
func (i *intake) agentPanics() map[string]uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.panics, func(node string, _ uint64) bool {
		_, ok := i.client.Get(kube.Node, "", node)
		return !ok
	})
	return maps.Clone(i.panics)
}

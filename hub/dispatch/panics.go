package dispatch

import (
	"maps"

	"petrel.dev/petrel/internal/kube"
)

// setPanics records what a node reports. A node without panics costs no memory.
func (i *intake) setPanics(node string, n uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n == 0 {
		delete(i.panics, node)
	} else {
		i.panics[node] = n
	}
}

// agentPanics returns the counts by node, and removes nodes that are gone.
func (i *intake) agentPanics() map[string]uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.panics, func(node string, _ uint64) bool {
		_, ok := i.client.Get(kube.Node, "", node)
		return !ok
	})
	return maps.Clone(i.panics)
}

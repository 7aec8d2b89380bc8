package hub

import (
	"petrel.dev/petrel/hub/nodemetrics"
	"petrel.dev/petrel/hub/registry"
)

// withMetrics returns verbs with metrics.k8s.io among what can be read.
func (h *Hub) withMetrics(verbs registry.Verbs) registry.Verbs {
	return nodemetrics.New(nodemetrics.Config{Verbs: verbs, Objects: h.objects, Nodes: h.reach, Log: h.part("metrics"),
		Connected: func(node string) bool { connected, _ := h.dispatch.Presence(node); return connected }})
}

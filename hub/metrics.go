package hub

import "petrel.dev/petrel/hub/nodemetrics"

// openMetrics makes what answers metrics.k8s.io.
func (h *Hub) openMetrics() {
	h.nodeMetrics = nodemetrics.New(nodemetrics.Config{Verbs: h.registry, Objects: h.objects, Nodes: h.reach, Log: h.part("metrics"),
		Absent: h.dispatch.Absent})
}

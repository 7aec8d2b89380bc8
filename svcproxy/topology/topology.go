// Package topology chooses the near ones of a Service's endpoints by their hints, as Kubernetes' proxies do.
package topology

import "slices"

// Hints are the zones and nodes whose clients should prefer an endpoint.
type Hints struct {
	Zones []string `json:"zones,omitempty"`
	Nodes []string `json:"nodes,omitempty"`
}

// Near returns which of a Service's ready endpoints clients on a node should use, by their hints: those hinted for the node, if every
// one is hinted for some node and one for this; otherwise those hinted for its zone, under the same condition; otherwise all. So a hint
// that is missing, or a zone without an endpoint, refuses nobody.
func Near[T any](ready []T, hints []Hints, node, zone string) []T {
	byNode := func(h Hints) []string { return h.Nodes }
	byZone := func(h Hints) []string { return h.Zones }
	switch {
	case useful(hints, byNode, node):
		return hinted(ready, hints, byNode, node)
	case useful(hints, byZone, zone):
		return hinted(ready, hints, byZone, zone)
	}
	return ready
}

// hinted returns the endpoints with a hint of a sort for here.
func hinted[T any](all []T, hints []Hints, of func(Hints) []string, here string) (out []T) {
	for i, h := range hints {
		if slices.Contains(of(h), here) {
			out = append(out, all[i])
		}
	}
	return out
}

// useful reports whether all have hints of a sort, and one is for here.
func useful(ready []Hints, of func(Hints) []string, here string) bool {
	found := false
	for _, h := range ready {
		hints := of(h)
		if len(hints) == 0 {
			return false
		}
		found = found || slices.Contains(hints, here)
	}
	return found
}

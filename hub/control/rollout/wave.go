package rollout

import (
	"cmp"
	"hash/fnv"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// Node is a node that takes a pod of a DaemonSet.
type Node struct {
	Name   string
	Labels map[string]string
	// Dark nodes are members of their wave, and the rollout does not wait for them.
	Dark bool
	// Updated is whether its pod is of the current template, and Healthy whether that one is available too.
	Updated, Healthy, Failed bool
}

// Progress is how far one wave is, those before it included.
type Progress struct {
	// Members is how many nodes the wave has itself, dark ones included; Reachable is how many of them are not dark.
	Members, Reachable int
	// Size is how many have to be updated, without dark ones; Updated and Healthy are how many of them are.
	Size, Updated, Healthy, Failed int
}

// Place returns the wave of each node by name, the first one being 0, and how far each wave is. Percentages take the nodes that no wave before has in an
// order that looks random and stays the same for a seed, so that a wave is not one site.
func (s *Spec) Place(seed string, nodes []Node) (map[string]int, []Progress) {
	order := slices.Clone(nodes)
	slices.SortFunc(order, func(a, b Node) int {
		return cmp.Or(cmp.Compare(mix(seed, a.Name), mix(seed, b.Name)), cmp.Compare(a.Name, b.Name))
	})
	waves := make(map[string]int, len(nodes))
	out := make([]Progress, len(s.Waves))
	for i, w := range s.Waves {
		if w.selector != nil {
			for _, n := range order {
				if !w.selector.Matches(labels.Set(n.Labels)) {
					continue
				}
				out[i].member(n)
				if _, ok := waves[n.Name]; !ok {
					waves[n.Name] = i
				}
			}
			continue
		}
		target := share(w.percent, len(nodes))
		for _, n := range order {
			if _, ok := waves[n.Name]; !ok && len(waves) < target {
				waves[n.Name] = i
				out[i].member(n)
			}
		}
	}
	for _, n := range nodes {
		for i := waves[n.Name]; i < len(out); i++ {
			out[i].add(n)
		}
	}
	return waves, out
}

func (p *Progress) member(n Node) {
	p.Members++
	if !n.Dark {
		p.Reachable++
	}
}

func (p *Progress) add(n Node) {
	if n.Dark {
		return
	}
	p.Size++
	if n.Updated {
		p.Updated++
	}
	switch {
	case n.Updated && n.Healthy:
		p.Healthy++
	case n.Updated && n.Failed:
		p.Failed++
	}
}

// Counted returns how far the waves of a Deployment are: percentages of its replicas, of which so many are updated, healthy and failed.
func (s *Spec) Counted(replicas, updated, healthy, failed int) []Progress {
	out := make([]Progress, len(s.Waves))
	for i, w := range s.Waves {
		n := share(w.percent, replicas)
		out[i] = Progress{Members: n, Reachable: n, Size: n, Updated: min(n, updated), Healthy: min(n, healthy), Failed: min(n, failed)}
	}
	return out
}

// share rounds up: a wave of a small fleet has one member at least.
func share(percent, total int) int { return int((int64(total)*int64(percent) + 99) / 100) }

func mix(seed, name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed + "/" + name))
	// The low bits of FNV of names that differ in their last character are not mixed well.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

package sched

// nodeSet is a set of nodes by slot, one bit each.
type nodeSet struct {
	bits []uint64
	size int
}

func (b *nodeSet) has(slot int) bool {
	return slot>>6 < len(b.bits) && b.bits[slot>>6]&(1<<(slot&63)) != 0
}

func (b *nodeSet) set(slot int, in bool) {
	if b.has(slot) == in {
		return
	}
	for slot>>6 >= len(b.bits) {
		b.bits = append(b.bits, 0)
	}
	b.bits[slot>>6] ^= 1 << (slot & 63)
	if in {
		b.size++
	} else {
		b.size--
	}
}

// SetImageOn records whether a node has an image. Of a node that is not known nothing is recorded.
func (s *Snapshot) SetImageOn(image, node string, has bool) {
	n, on := s.nodes[node], s.located[image]
	if n == nil || on == nil && !has {
		return
	}
	if on == nil {
		on = &nodeSet{}
		s.located[image] = on
	}
	if on.set(n.slot, has); on.size == 0 {
		delete(s.located, image)
	}
}

// imageLocality prefers nodes that have the pod's images, more so for images that many nodes have: otherwise all that uses an
// image would gather where it was used first. Kubernetes weighs by size too, which nodes do not report.
type imageLocality struct {
	on     []*nodeSet
	images int64 // of the pod
	nodes  int64
}

func (f *imageLocality) prepare(s *Snapshot, p *Pod, _ []*node) bool {
	if len(s.located) == 0 {
		return false
	}
	for _, list := range [][]string{p.images, p.mounted} {
		for _, image := range list {
			if on := s.located[image]; on != nil {
				f.on = append(f.on, on)
			}
		}
	}
	f.images, f.nodes = int64(len(p.images)+len(p.mounted)), int64(len(s.order))
	return len(f.on) > 0
}

func (f *imageLocality) score(n *node) (sum int64) {
	for _, on := range f.on {
		if on.has(n.slot) {
			sum += maxScore * int64(on.size) / f.nodes
		}
	}
	return sum / f.images
}
func (f *imageLocality) normalize([]int64) {}

// SetLink sets how good the connection to a node is, from 0 (there is none now) to 100. A node for which it was not set counts as 100.
func (s *Snapshot) SetLink(node string, quality int) {
	if quality >= maxScore {
		delete(s.links, node)
	} else {
		s.links[node] = int64(quality)
	}
	if n := s.nodes[node]; n != nil {
		n.link = int64(min(quality, maxScore))
	}
}

// linkQuality prefers nodes that are well connected. Those that are dark are refused by their taint, unless the pod tolerates it.
type linkQuality struct{}

func (linkQuality) prepare(s *Snapshot, _ *Pod, _ []*node) bool { return len(s.links) > 0 }
func (linkQuality) score(n *node) int64 {
	if n.dark {
		return 0
	}
	return n.link
}
func (linkQuality) normalize([]int64) {}

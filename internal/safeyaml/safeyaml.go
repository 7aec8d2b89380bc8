// Package safeyaml says what a YAML document would become before it is parsed for good. In YAML an alias stands for what its anchor
// names, so that a few kilobytes may stand for gigabytes; the parser shares them in memory, and its conversion to JSON writes
// each out.
package safeyaml

import (
	"bytes"
	"fmt"

	"sigs.k8s.io/yaml/goyaml.v3"
)

// Check refuses a document whose aliases make more than limit bytes of it, and more than twice its own length. A document that cannot be parsed passes: the parser that it
// is meant for has the better error.
func Check(doc []byte, limit int) error {
	if !bytes.Contains(doc, []byte("&")) || !bytes.Contains(doc, []byte("*")) {
		return nil // without aliases it becomes no larger
	}
	limit = max(limit, 2*len(doc))
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil
	}
	e := expander{limit: limit, sizes: map[*yaml.Node]int{}}
	if n := e.size(&root); n > limit {
		return fmt.Errorf("document contains excessive aliasing: written out it would have more than %d bytes", limit)
	}
	return nil
}

// expander adds up sizes. An anchor is looked at once, however many aliases it has.
type expander struct {
	limit int
	sizes map[*yaml.Node]int // of anchors; of one that contains itself, more than limit
}

// size returns about how many bytes n has with its aliases written out, or some number beyond limit.
func (e *expander) size(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		return e.size(n.Alias)
	}
	if size, ok := e.sizes[n]; ok {
		return size
	}
	if n.Anchor != "" {
		e.sizes[n] = e.limit + 1 // until it is known: an anchor inside itself has no end
	}
	size := len(n.Value) + 2
	for _, child := range n.Content {
		if size += e.size(child); size > e.limit {
			break
		}
	}
	if n.Anchor != "" {
		e.sizes[n] = size
	}
	return size
}

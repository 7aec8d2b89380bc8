// Package patchcost estimates what a patch would cost before it is applied, and refuses those that would take minutes. The patch
// libraries compare each entry of a patch with each entry of the list that it goes into, and nothing stops them once they
// run. So the estimate goes by the lengths of the lists alone, and is quick whatever is in them.
package patchcost

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

const (
	// maxPairs bounds the comparisons of a strategic merge patch, of some 35 ns each: lists of 4,500 entries.
	maxPairs = 20 << 20
	// maxMoves bounds the list entries that a JSON patch moves: each insertion copies the list.
	maxMoves = 200 << 20
	// maxTested bounds the bytes that the test operations of a JSON patch compare.
	maxTested = 512 << 20
)

// tooCostly returns a 413 whose text advises what to do instead.
func tooCostly(what string, cost, bound int) error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
		"this patch would need %d %s, and %d are allowed; send a smaller one, or replace the object (PUT)", cost, what, bound))
}

// Strategic refuses a strategic merge patch of original that would compare too much: a Status 413. schema has the merge rules
// of original's type.
func Strategic(original, patch map[string]any, schema strategicpatch.LookupPatchMeta) error {
	c := lists{}
	c.walk(patch, schema)
	if len(c.sizes) == 0 {
		return nil
	}
	longest := longestList(original, 0)
	if c.twins { // entries for one and the same object add up, to what may be any list of it
		longest += c.entries
	}
	cost := 0
	for _, size := range c.sizes {
		// The library sorts each list that it merges, and looks for each entry's place by comparing with all others.
		if cost += (longest + size) * (longest + size); cost > maxPairs {
			return tooCostly("comparisons of list entries at least", cost, maxPairs)
		}
	}
	return nil
}

// lists collects the lists of a strategic merge patch, those aside that replace a list as a whole.
type lists struct {
	sizes   []int // entries of each, with those of its $setElementOrder and $deleteFromPrimitiveList
	entries int   // of all of them
	twins   bool  // a list has two entries for the same object
}

// walk adds the lists of a patch, and of the objects in it, by the merge rules of schema.
func (c *lists) walk(patch map[string]any, schema strategicpatch.LookupPatchMeta) {
	sizes := map[string]int{}
	for key, value := range patch {
		switch v := value.(type) {
		case map[string]any:
			if sub, _, err := schema.LookupPatchMetadataForStruct(key); err == nil {
				c.walk(v, sub)
			} // otherwise not in the type, or no struct: merged without comparisons, or refused by the library
		case []any:
			if _, of, directive := strings.Cut(key, "/"); directive && strings.HasPrefix(key, "$") {
				key = of
			} else if !c.list(key, v, schema) {
				continue
			}
			sizes[key] += len(v)
		}
	}
	for _, n := range sizes {
		c.sizes = append(c.sizes, n)
		c.entries += n
	}
}

// list walks the entries of a list, and reports whether it is merged.
func (c *lists) list(key string, v []any, schema strategicpatch.LookupPatchMeta) bool {
	sub, meta, err := schema.LookupPatchMetadataForSlice(key)
	if err != nil || !slices.Contains(meta.GetPatchStrategies(), "merge") {
		return false
	}
	seen := map[any]bool{}
	for _, e := range v {
		m, ok := e.(map[string]any)
		if !ok {
			continue
		}
		switch id := m[meta.GetPatchMergeKey()].(type) {
		case string, int64, float64, bool:
			c.twins = c.twins || seen[id]
			seen[id] = true
		}
		c.walk(m, sub)
	}
	return true
}

// longestList returns the length of the longest list anywhere in v.
func longestList(v any, longest int) int {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			longest = longestList(e, longest)
		}
	case []any:
		longest = max(longest, len(v))
		for _, e := range v {
			longest = longestList(e, longest)
		}
	}
	return longest
}

// JSON refuses operations on the object in now that would copy or compare too much: a Status 413.
func JSON(now []byte, ops jsonpatch.Patch) error {
	const few = 64 // so many operations are harmless on whatever fits into an object
	if len(ops) <= few {
		return nil
	}
	tests, sizes := 0, 0
	for _, op := range ops {
		if op.Kind() == "test" {
			tests++
		}
		if raw := op["value"]; raw != nil {
			sizes = max(sizes, len(*raw))
		}
	}
	return Operations(now, len(ops), tests, sizes)
}

// Operations is JSON for so many operations, of which so many are tests, and whose largest value has so many bytes.
func Operations(now []byte, operations, tests, largest int) error {
	if cost := tests * (len(now) + largest); cost > maxTested {
		return tooCostly("bytes of comparisons by test operations", cost, maxTested)
	}
	var doc any
	if err := json.Unmarshal(now, &doc); err != nil {
		return apierrors.NewInternalError(err)
	}
	// A value of the patch may become a list that later operations insert into.
	if cost := operations * (longestList(doc, 0) + operations + largest/2); cost > maxMoves {
		return tooCostly("moves of list entries", cost, maxMoves)
	}
	return nil
}

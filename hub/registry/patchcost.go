package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"petrel.dev/petrel/hub/auth"
)

// The patch libraries compare each entry of a patch with each entry of the list that it goes into, and nothing stops them
// once they run. So what a patch can cost is estimated from the lengths of its lists before it is applied.
const (
	// maxPatchPairs bounds the comparisons of a strategic merge patch, of some 35 ns each: lists of 4,500 entries.
	maxPatchPairs = 20 << 20
	// maxPatchMoves bounds the list entries that a JSON patch moves: each insertion copies the list.
	maxPatchMoves = 200 << 20
	// maxPatchTested bounds the bytes that the test operations of a JSON patch compare.
	maxPatchTested = 512 << 20
	// heavyPatch is the size of patch and object, in bytes, from which patches are applied one at a time.
	heavyPatch = 64 << 10
)

// tooCostly returns a 413 whose text advises what to do instead.
func tooCostly(what string, cost, bound int) error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
		"this patch would need %d %s, and %d are allowed; send a smaller one, or replace the object (PUT)", cost, what, bound))
}

// turn waits until a large patch may be applied: one at a time, so that patches have one core of the machine at most. Users
// take turns, parts of the hub too. done must be called.
func (r *Registry) turn(ctx context.Context, size int) (done func(), err error) {
	if size < heavyPatch {
		return func() {}, nil
	}
	done, err = r.patching.Acquire(ctx, auth.UserFrom(ctx).Name)
	if err != nil {
		return nil, apierrors.NewTimeoutError("other large patches are being applied; try again later", 2)
	}
	return done, nil
}

// checkStrategic refuses a strategic merge patch that would compare too much.
func checkStrategic(original, patch map[string]any, schema strategicpatch.LookupPatchMeta) error {
	c := patchCost{}
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
		if cost += (longest + size) * (longest + size); cost > maxPatchPairs {
			return tooCostly("comparisons of list entries at least", cost, maxPatchPairs)
		}
	}
	return nil
}

// patchCost collects the lists of a strategic merge patch, those aside that replace a list as a whole.
type patchCost struct {
	sizes   []int // entries of each, with those of its $setElementOrder and $deleteFromPrimitiveList
	entries int   // of all of them
	twins   bool  // a list has two entries for the same object
}

// walk adds the lists of a patch, and of the objects in it, by the merge rules of schema.
func (c *patchCost) walk(patch map[string]any, schema strategicpatch.LookupPatchMeta) {
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
func (c *patchCost) list(key string, v []any, schema strategicpatch.LookupPatchMeta) bool {
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

// checkJSONPatch refuses operations that would copy or compare too much.
func checkJSONPatch(now []byte, ops jsonpatch.Patch) error {
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
	if cost := tests * (len(now) + sizes); cost > maxPatchTested {
		return tooCostly("bytes of comparisons by test operations", cost, maxPatchTested)
	}
	var doc any
	if err := json.Unmarshal(now, &doc); err != nil {
		return apierrors.NewInternalError(err)
	}
	// A value of the patch may become a list that later operations insert into.
	if cost := len(ops) * (longestList(doc, 0) + len(ops) + sizes/2); cost > maxPatchMoves {
		return tooCostly("moves of list entries", cost, maxPatchMoves)
	}
	return nil
}

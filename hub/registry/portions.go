package registry

import (
	"context"
	"encoding/json"
	"iter"
)

// portionBytes is how much of a list is decoded at a time, in bytes of JSON.
const portionBytes = 1 << 20

// Portions returns the list's items as the client gets them, a few at a time: what decrypts them or shows them in another version has no more
// than that in memory. Portions are not empty. An error ends them. They can be gone through again.
func (l *ListResult) Portions(ctx context.Context) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		for from := 0; from < len(l.Items); {
			items, err := l.portion(ctx, from)
			if !yield(items, err) || err != nil {
				return
			}
			from += len(items)
		}
	}
}

// portion returns the portion that begins with an item of the list.
func (l *ListResult) portion(ctx context.Context, from int) ([]json.RawMessage, error) {
	to := from + portion(l.Items[from:])
	if l.Show == nil {
		return l.Items[from:to], nil
	}
	return l.Show(ctx, from, to)
}

// portion returns how many items are in the next portion. There is one at least.
func portion(items []json.RawMessage) int {
	bytes := 0
	for i, item := range items {
		if bytes += len(item); bytes > portionBytes && i > 0 {
			return i
		}
	}
	return len(items)
}

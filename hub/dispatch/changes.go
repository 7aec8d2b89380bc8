package dispatch

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/wire"
)

// changes are what a report leads to: none when it has no effect, or the node may not report it.
type changes struct {
	writes []control.Write
	alone  bool     // must not share a transaction
	left   []string // what of the report is not taken, and why
}

// report is one object of a node's batch.
type report struct {
	node string
	put  *wire.Put
}

// unread returns the changes of a report of which nothing is taken.
func unread(format string, args ...any) changes {
	return changes{left: []string{"all of it: " + fmt.Sprintf(format, args...)}}
}

// decode decodes a status as far as possible: one field of a wrong type does not cost the others.
func decode[T any](data []byte, status *T) (left []string, err error) {
	if json.Unmarshal(data, status) == nil {
		return nil, nil
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	*status = *new(T)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err == nil {
			err = json.Unmarshal(one, new(T))
		}
		if err == nil {
			err = json.Unmarshal(one, status)
		}
		if err != nil && len(left) < maxLeft {
			left = append(left, fmt.Sprintf("%.50q, which cannot be read: %.200s", name, err))
		}
	}
	return left, nil
}

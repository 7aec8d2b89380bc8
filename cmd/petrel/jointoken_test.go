package main

import (
	"slices"
	"testing"
)

func TestWithoutToken(t *testing.T) {
	for _, c := range []struct {
		args  []string
		token string
		rest  []string
		ok    bool
	}{
		{[]string{"petrel", "agent", "--join", "petrel1.x", "--node-name", "a"}, "petrel1.x", []string{"petrel", "agent", "--node-name", "a"}, true},
		{[]string{"petrel", "agent", "--join=petrel1.x"}, "petrel1.x", []string{"petrel", "agent"}, true},
		{[]string{"petrel", "agent"}, "petrel1.x", []string{"petrel", "agent"}, false}, // from the environment or a file
		{[]string{"petrel", "agent", "--join", "-"}, "-", nil, false},
		{[]string{"petrel", "agent"}, "", nil, false},
	} {
		rest, ok := withoutToken(c.args, c.token)
		if ok != c.ok || c.ok && !slices.Equal(rest, c.rest) {
			t.Errorf("%q: %q, %v", c.args, rest, ok)
		}
	}
}

package edgeagent

import (
	"slices"
	"strings"

	"petrel.dev/petrel/internal/contain"
)

// panicSites are the first parts of the names under which the agent contains panics. With `petrel up` the hub counts its own
// in the same process.
var panicSites = []string{"agent", "ctrd", "link", "podlog", "podnet", "podrun", "svcproxy"}

// panics returns how many panics the agent has contained since it started.
func panics() (n uint64) {
	for site, count := range contain.Counts() {
		if room, _, _ := strings.Cut(site, "/"); slices.Contains(panicSites, room) {
			n += count
		}
	}
	return n
}

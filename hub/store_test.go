package hub

import "petrel.dev/petrel/sqlstore/memory"

// Any engine fits the hub's wiring, not only the one that openStore chooses.
var _ engine = (*memory.Store)(nil)

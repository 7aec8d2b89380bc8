package memory

import "petrel.dev/petrel/sqlstore"

// Compacted returns the oldest revision that can still be listed, or watched from.
func (s *Store) Compacted() sqlstore.Revision { return s.log.Compacted() }

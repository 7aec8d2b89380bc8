package sqlstore

// LimitMemory keeps at most n changes in memory, so that older ones are read from the file.
func (db *DB) LimitMemory(n int) {
	db.history.mu.Lock()
	defer db.history.mu.Unlock()
	db.history.maxRing = n
}

// Exec runs SQL on the committer's connection: between Open and Run only.
func (db *DB) Exec(text string) error { return db.file.exec(text) }

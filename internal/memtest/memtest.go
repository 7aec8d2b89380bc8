// Package memtest measures for tests what something takes of memory.
package memtest

import "runtime"

// Allocated returns how many MiB are allocated while f runs, by all goroutines of the process; what is freed meanwhile counts too.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) >> 20
}

// Live returns how many bytes of the heap are reachable, for all that the process has.
func Live() int64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool holds goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

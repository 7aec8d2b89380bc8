package sqlite_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// value is an object of n bytes that no file system compresses.
func value(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n { // eight at a time: under qemu's user emulation one at a time takes minutes for a test
		b = binary.NativeEndian.AppendUint64(b, rand.Uint64()&0x3f3f3f3f3f3f3f3f+0x2020202020202020)
	}
	return b[:n]
}

// written is what this process has caused to be written to storage, in bytes; ok is false where the system does not count it.
func written() (n int64, ok bool) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	for _, line := range strings.Split(string(b), "\n") {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n, true
		}
	}
	return 0, false
}

// BenchmarkFdatasync is what BenchmarkCommit is to be compared with: the same bytes, one after the other, made durable
// in a file that already has its size.
func BenchmarkFdatasync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size, rows = 1100, 3000
	if _, err := f.Write(make([]byte, size*rows)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	v := value(size)
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(v, int64(i%rows)*size); err != nil {
			b.Fatal(err)
		}
		if err := datasync(f); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkCommit creates objects of 1 KiB, each durable before its answer, by writers that wait for their answers.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			db := start(b, sqlite.Config{})
			v := value(1024)
			warm := make([]sqlstore.Op, 4000) // the WAL has its size, as in a hub that has been up for a while
			for i := range warm {
				warm[i] = sqlstore.Op{Key: fmt.Sprintf("/registry/warm/%d", i), Value: v, RevAt: -1}
			}
			if _, err := db.Commit(b.Context(), warm...); err != nil {
				b.Fatal(err)
			}
			if err := db.Compact(b.Context(), 0); err != nil { // queues behind the upkeep that the warm-up made due
				b.Fatal(err)
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			before, _ := written()
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						op := sqlstore.Op{Key: fmt.Sprintf("/registry/pods/default/pod-%d", i), Value: v, RevAt: -1}
						if _, err := db.Commit(context.Background(), op); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			if after, ok := written(); ok {
				b.ReportMetric(float64(after-before)/float64(b.N), "written-B/op")
			}
		})
	}
}

// BenchmarkUpdate is the life of a status: one object after the other is replaced, and compaction keeps up.
func BenchmarkUpdate(b *testing.B) {
	db := start(b, sqlite.Config{MaxHistory: 2000})
	v := value(1024)
	before, _ := written()
	for i := 0; b.Loop(); i++ {
		op := sqlstore.Op{Key: fmt.Sprintf("/registry/pods/default/pod-%d", i%100), Value: v, RevAt: -1, If: sqlstore.AnyRevision}
		if _, err := db.Commit(context.Background(), op); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
	if after, ok := written(); ok {
		b.ReportMetric(float64(after-before)/float64(b.N), "written-B/op")
	}
}

func filled(b *testing.B, n int) *sqlite.DB {
	db := start(b, sqlite.Config{})
	v := value(1700)
	ops := make([]sqlstore.Op, n)
	for i := range ops {
		ops[i] = sqlstore.Op{Key: fmt.Sprintf("/registry/pods/default/pod-%06d", i), Value: v, RevAt: -1}
	}
	if _, err := db.Commit(b.Context(), ops...); err != nil {
		b.Fatal(err)
	}
	return db
}

func BenchmarkList(b *testing.B) {
	db := filled(b, 5000)
	for _, limit := range []int{0, 500} {
		b.Run(fmt.Sprintf("of=5000,limit=%d", limit), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p, err := db.List(b.Context(), "/registry/pods/", "", limit, 0); err != nil || len(p.Entries) == 0 {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	db := filled(b, 5000)
	for b.Loop() {
		if _, ok, err := db.Get(b.Context(), "/registry/pods/default/pod-002500"); !ok || err != nil {
			b.Fatal("gone", err)
		}
	}
}

// BenchmarkOpen loads and checks 10,000 objects, without and with 20,000 superseded values behind them.
func BenchmarkOpen(b *testing.B) {
	for _, history := range []int{0, 2} {
		b.Run(fmt.Sprintf("history=%d", history*10_000), func(b *testing.B) { benchmarkOpen(b, history) })
	}
}

func benchmarkOpen(b *testing.B, rounds int) {
	path := filepath.Join(b.TempDir(), "hub.db")
	full := filled(b, 10_000)
	for range rounds {
		p, err := full.List(b.Context(), "", "", 0, 0)
		if err != nil {
			b.Fatal(err)
		}
		ops := make([]sqlstore.Op, len(p.Entries))
		for i, e := range p.Entries {
			ops[i] = sqlstore.Op{Key: e.Key, Value: e.Value, RevAt: -1, If: e.Rev}
		}
		if _, err := full.Commit(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := full.Backup(b.Context(), path); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := sqlite.Open(b.Context(), sqlite.Config{Path: path})
		if err != nil {
			b.Fatal(err)
		}
		if db.Len() != 10_000 {
			b.Fatal(db.Len())
		}
		db.Close()
	}
}

// BenchmarkCommitWatched commits beside thousands of watchers of other prefixes, which must cost a commit nothing.
func BenchmarkCommitWatched(b *testing.B) {
	for _, n := range []int{0, 5000} {
		b.Run(fmt.Sprintf("watchers=%d", n), func(b *testing.B) {
			db := start(b, sqlite.Config{})
			for i := range n {
				w, err := db.Watch(b.Context(), fmt.Sprintf("/registry/secrets/ns-%d/", i), revision(b, db))
				if err != nil {
					b.Fatal(err)
				}
				defer w.Close()
			}
			v := value(1024)
			begin := time.Now()
			for i := 0; b.Loop(); i++ {
				op := sqlstore.Op{Key: fmt.Sprintf("/registry/pods/default/pod-%d", i), Value: v, RevAt: -1}
				if _, err := db.Commit(context.Background(), op); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "commits/s")
		})
	}
}

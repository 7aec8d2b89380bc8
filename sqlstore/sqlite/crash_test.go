package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// crashEnv makes the test binary the process that is killed: its value is the store's path.
const crashEnv = "PETREL_TEST_CRASH_STORE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const crashWriters = 4

var crashConfig = sqlite.Config{MaxHistory: 300}

// writeUntilKilled has writers that each raise a number of their own, kept in two keys of one transaction, and touch a
// third key that comes and goes. A line "writer number" on standard output means that the store has acknowledged it.
func writeUntilKilled(path string) error {
	cfg := crashConfig
	cfg.Path = path
	db, err := sqlite.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	go db.Run(context.Background())
	errs := make(chan error)
	for i := range crashWriters {
		go func() {
			start, _, err := db.Get(context.Background(), crashKey("left", i))
			if err != nil {
				errs <- err
				return
			}
			n, _ := strconv.Atoi(string(start.Value))
			for {
				n++
				if err := raise(db, i, n); err != nil {
					errs <- err
					return
				}
				fmt.Printf("%d %d\n", i, n) // one write: lines do not mix
			}
		}()
	}
	return <-errs
}

func crashKey(side string, writer int) string { return fmt.Sprintf("/%s/%d", side, writer) }

func raise(db *sqlite.DB, writer, n int) error {
	op := func(side string) sqlstore.Op {
		return sqlstore.Op{Key: crashKey(side, writer), Value: []byte(strconv.Itoa(n)), RevAt: -1, If: sqlstore.AnyRevision}
	}
	flicker := op("flicker")
	var err error
	if _, flicker.Delete, err = db.Get(context.Background(), flicker.Key); err != nil {
		return err
	}
	if n%10 == 0 {
		flicker.Value = value(n * 10 % 5000) // some are large
	}
	_, err = db.Commit(context.Background(), op("left"), flicker, op("right"))
	return err
}

// TestKill kills a writing process at random moments, again and again on one file. What it acknowledged must be there,
// transactions must be whole, and revisions without a gap.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	acked := make([]int, crashWriters)
	total := 0
	for round := range 15 {
		before := acked[0]
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := sync.OnceFunc(func() {
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
			cmd.Process.Kill()
		})
		for lines := bufio.NewScanner(out); lines.Scan(); {
			go kill() // it has begun
			var writer, n int
			if _, err := fmt.Sscan(lines.Text(), &writer, &n); err == nil {
				acked[writer] = n
				total++
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the writer ended by itself")
		}
		if acked[0] < before {
			t.Fatalf("round %d: the writer went back from %d to %d", round, before, acked[0])
		}
		checkAfterCrash(t, path, acked)
	}
	if total < 15 {
		t.Errorf("only %d commits were acknowledged before the kills: nothing was tested", total)
	}
	t.Logf("%d acknowledged transactions in 15 lives", total)
}

func checkAfterCrash(t *testing.T, path string, acked []int) {
	t.Helper()
	cfg := crashConfig
	cfg.Path = path
	db, err := sqlite.Open(t.Context(), cfg) // which proves that there is no gap
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, n := range acked {
		left, _ := get(t, db, crashKey("left", i))
		right, _ := get(t, db, crashKey("right", i))
		got, _ := strconv.Atoi(string(left.Value))
		if got != n && got != n+1 {
			t.Errorf("writer %d: acknowledged %d, found %d", i, n, got)
		}
		acked[i] = got // the next life goes on from here, and may be killed before it acknowledges anything
		if string(left.Value) != string(right.Value) || n > 0 && left.Rev+2 != right.Rev {
			t.Errorf("writer %d: half a transaction: %s at %d and %s at %d", i, left.Value, left.Rev, right.Value, right.Rev)
		}
	}
	from := db.Compacted()
	if from == revision(t, db) {
		return
	}
	w, err := db.Watch(t.Context(), "", from)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for from < revision(t, db) {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Rev != from+1 {
				t.Fatalf("revision %d follows %d", e.Rev, from)
			}
			from = e.Rev
		}
	}
}

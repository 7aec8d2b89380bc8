package storetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"petrel.dev/petrel/sqlstore"
)

// Killable is an Engine whose stores can be opened by another process, which is killed while it writes. The engine's package
// calls Main in its TestMain.
type Killable interface {
	// OpenIn opens the store that is kept in dir, making it the first time, and has it take commits. It keeps so little
	// history, a few hundred revisions, that it is compacted while it is written to.
	OpenIn(ctx context.Context, dir string) (Store, error)
}

// crashEnv makes the test binary the process that is killed: its value is the store's directory.
const crashEnv = "PETREL_TEST_CRASH_STORE"

// emulatorEnv names the program that runs binaries like this one, where the kernel cannot: cross-build/emulate.sh sets it.
const emulatorEnv = "PETREL_TEST_EMULATOR"

const crashWriters = 4

// Main runs the tests of an engine's package, or what Run has started the test binary for once more.
func Main(m *testing.M, k Killable) {
	if dir := os.Getenv(crashEnv); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(k, dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled has writers that each raise a number of their own, kept in two keys of one transaction, and touch a
// third key that comes and goes. A line "writer number" on standard output means that the store has acknowledged it.
func writeUntilKilled(k Killable, dir string) error {
	s, err := k.OpenIn(context.Background(), dir)
	if err != nil {
		return err
	}
	errs := make(chan error)
	for i := range crashWriters {
		go func() {
			start, _, err := s.Get(context.Background(), crashKey("left", i))
			if err != nil {
				errs <- err
				return
			}
			n, _ := strconv.Atoi(string(start.Value))
			for {
				n++
				if err := raise(s, i, n); err != nil {
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

func raise(s Store, writer, n int) error {
	op := func(side string) sqlstore.Op {
		return sqlstore.Op{Key: crashKey(side, writer), Value: []byte(strconv.Itoa(n)), RevAt: -1, If: sqlstore.AnyRevision}
	}
	flicker := op("flicker")
	var err error
	if _, flicker.Delete, err = s.Get(context.Background(), flicker.Key); err != nil {
		return err
	}
	if n%10 == 0 {
		flicker.Value = bytes.Repeat([]byte{byte(' ' + rand.IntN(64))}, n*10%5000) // some are large
	}
	_, err = s.Commit(context.Background(), op("left"), flicker, op("right"))
	return err
}

// testKill kills a writing process at random moments, again and again on one store. What it acknowledged must be there,
// transactions must be whole, and revisions without a gap.
func testKill(t *testing.T, k Killable) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := []string{exe}
	if emulator := os.Getenv(emulatorEnv); emulator != "" {
		command = []string{emulator, exe}
	}
	acked := make([]int, crashWriters)
	total := 0
	for round := range 15 {
		before := acked[0]
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
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
		checkAfterCrash(t, k, dir, acked)
	}
	if total < 15 {
		t.Errorf("only %d commits were acknowledged before the kills: nothing was tested", total)
	}
	t.Logf("%d acknowledged transactions in 15 lives", total)
}

func checkAfterCrash(t *testing.T, k Killable, dir string, acked []int) {
	t.Helper()
	s, err := k.OpenIn(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i, n := range acked {
		left, _ := get(t, s, crashKey("left", i))
		right, _ := get(t, s, crashKey("right", i))
		got, _ := strconv.Atoi(string(left.Value))
		if got != n && got != n+1 {
			t.Errorf("writer %d: acknowledged %d, found %d", i, n, got)
		}
		acked[i] = got // the next life goes on from here, and may be killed before it acknowledges anything
		if string(left.Value) != string(right.Value) || n > 0 && left.Rev+2 != right.Rev {
			t.Errorf("writer %d: half a transaction: %s at %d and %s at %d", i, left.Value, left.Rev, right.Value, right.Rev)
		}
	}
	checkDense(t, s)
}

// checkDense reads all history that is kept: no revision is missing.
func checkDense(t *testing.T, s Store) {
	t.Helper()
	from := sqlstore.Revision(0)
	w, err := s.Watch(t.Context(), "", from)
	if gone := (*sqlstore.CompactedError)(nil); errors.As(err, &gone) {
		from = gone.Oldest
		w, err = s.Watch(t.Context(), "", from)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for from < revision(t, s) {
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

package registrytest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/memory"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// engineEnv chooses the engine of all stores that this package makes: "sqlite", which is also the default, or "memory".
const engineEnv = "PETREL_TEST_ENGINE"

// TestStore is a store that can be made to forget its history.
type TestStore interface {
	sqlstore.Store
	// Compact forgets history up to and including revision to.
	Compact(ctx context.Context, to sqlstore.Revision) error
}

type engine interface {
	TestStore
	Run(ctx context.Context) error
	Close() error
}

// Engine returns the name of the engine that stores have.
func Engine() string {
	if name := os.Getenv(engineEnv); name != "" {
		return name
	}
	return "sqlite"
}

// open makes a store that may hold limit bytes, 0 is the engine's usual limit, and whose keys are tenant's; nil: nobody's.
func open(t testing.TB, limit int64, tenant func(key string) string) engine {
	t.Helper()
	switch name := Engine(); name {
	case "sqlite":
		db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "hub.db"), MaxBytes: limit, Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		return db
	case "memory":
		return memory.New(memory.Config{MaxBytes: limit, Tenant: tenant})
	default:
		t.Fatalf("%s=%s: no such engine", engineEnv, name)
		return nil
	}
}

// OnMemory runs all other tests of the package that t belongs to once more, in a process of their own whose stores are of
// the engine in memory. Nothing is left out but t itself.
func OnMemory(t *testing.T) {
	t.Helper()
	args := []string{"-test.count=1", "-test.skip=^" + t.Name() + "$"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if end, ok := t.Deadline(); ok {
		const report = 5 * time.Second // for t to say what failed before its own time is over
		args = append(args, "-test.timeout="+(time.Until(end)-report).String())
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), engineEnv+"=memory")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the tests fail on the engine in memory: %v\n%s", err, out)
	}
}

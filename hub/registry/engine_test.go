package registry_test

import (
	"fmt"
	"testing"

	"petrel.dev/petrel/hub/registry/registrytest"
)

// TestOnMemoryEngine runs this package's tests on a second engine: nothing in the registry depends on SQLite.
func TestOnMemoryEngine(t *testing.T) { registrytest.OnMemory(t) }

// TestEngine proves that the tests run on the engine that was asked for.
func TestEngine(t *testing.T) {
	want := map[string]string{"sqlite": "*sqlite.DB", "memory": "*memory.Store"}[registrytest.Engine()]
	if got := fmt.Sprintf("%T", registrytest.Store(t)); got != want {
		t.Errorf("stores are %s, want %s", got, want)
	}
}

package e2e

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// startBox starts a hub on the first of some machines. Those that join have busybox as petrel.local/box:v1.
func startBox(t *testing.T, name string, machines int) ([]harness.Machine, *harness.Hub) {
	t.Helper()
	ms := harness.LAN(t, name, machines)
	h := harness.StartHub(t, ms[0])
	h.Images = map[string]v1.Image{"petrel.local/box:v1": runtimetest.Busybox(t)}
	return ms, h
}

package harness

import (
	"io"
	"log"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// StartRegistry serves images to the LAN at m, and returns a function that pushes an index of images to it.
func StartRegistry(t *testing.T, m Machine) (host string, push func(ref string, images ...v1.Image)) {
	t.Helper()
	srv := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	t.Cleanup(func() { srv.Close() })
	lanSide := m.Listen(t, "5000")
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{lanSide, local} {
		go func() { _ = srv.Serve(l) }() // until Close
	}
	return lanSide.Addr().String(), func(ref string, images ...v1.Image) {
		t.Helper()
		tag, err := name.NewTag(local.Addr().String()+"/"+ref, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(tag, runtimetest.Index(t, images...)); err != nil {
			t.Fatal(err)
		}
	}
}

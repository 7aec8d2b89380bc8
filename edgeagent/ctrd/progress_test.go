package ctrd

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// halting is an answer that stops after some bytes until it may go on.
type halting struct {
	http.ResponseWriter
	left int
	on   <-chan struct{}
}

func (h *halting) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		if h.left == 0 {
			h.ResponseWriter.(http.Flusher).Flush()
			<-h.on
			h.left = -1
		}
		part := b
		if h.left > 0 {
			part = b[:min(h.left, len(b))]
			h.left -= len(part)
		}
		var m int
		m, err = h.ResponseWriter.Write(part)
		n, b = n+m, b[len(part):]
	}
	return n, err
}

// TestPulls looks at a pull while the registry has sent half of a layer, and has not gone on: what is on the node already counts, and the
// pull is gone from the list with its end.
func TestPulls(t *testing.T) {
	const size = 8 << 20
	layer, err := random.Layer(size, types.DockerUncompressedLayer)
	if err != nil {
		t.Fatal(err)
	}
	id, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	busybox := runtimetest.Busybox(t)
	img, err := mutate.AppendLayers(busybox, layer)
	if err != nil {
		t.Fatal(err)
	}
	r := private(t) // it has busybox
	on := make(chan struct{})
	reg := registry.New(registry.Logger(silent()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, id.String()) {
			w = &halting{w, size / 2, on}
		}
		reg.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	p := &pushed{T: t, host: srv.Listener.Addr().String()}
	if err := remote.Write(p.tag("large:1"), img); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Hope)
	defer cancel()
	if list, err := r.Pulls(ctx); err != nil || len(list) != 0 {
		t.Errorf("before: %v, %v", list, err)
	}
	begin := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Pull(ctx, p.tag("large:1").Name(), nil)
		ended <- err
	}()
	layers, total := sizes(t, img)
	present, _ := sizes(t, busybox)
	for least := present + size/4; ; time.Sleep(10 * time.Millisecond) {
		list, err := r.Pulls(ctx)
		if err != nil || len(list) > 1 || ctx.Err() != nil {
			t.Fatalf("%+v, %v; want %d of %d bytes", list, err, least, total)
		}
		if len(list) == 0 || list[0].Bytes < least {
			continue
		}
		got := list[0]
		if most := layers - size/2 + (total - layers); got.Image != p.tag("large:1").Name() || got.TotalBytes != total || got.Bytes > most || got.Since.Before(begin) {
			t.Errorf("%+v, want at most %d of %d", got, most, total)
		}
		break
	}
	close(on)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if list, err := r.Pulls(ctx); err != nil || len(list) != 0 {
		t.Errorf("after: %v, %v", list, err)
	}
}

// sizes returns the bytes of an image's layers, and of layers and configuration.
func sizes(t *testing.T, img v1.Image) (layers, total int64) {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		layers += l.Size
	}
	return layers, layers + m.Config.Size
}

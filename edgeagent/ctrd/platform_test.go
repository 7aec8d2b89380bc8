package ctrd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/ctrd/underway"
)

// pushed is a registry of the test's own, and what has been asked of it.
type pushed struct {
	*testing.T
	host string

	mu    sync.Mutex
	asked []string
}

func newRegistry(t *testing.T) *pushed {
	p := &pushed{T: t}
	reg := registry.New(registry.Logger(silent()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.URL.Path)
		p.mu.Unlock()
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	p.host = srv.Listener.Addr().String()
	return p
}

func (p *pushed) tag(ref string) name.Tag {
	p.Helper()
	tag, err := name.NewTag(p.host+"/"+ref, name.Insecure)
	if err != nil {
		p.Fatal(err)
	}
	return tag
}

func (p *pushed) image(ref string, img v1.Image) string {
	p.Helper()
	if err := remote.Write(p.tag(ref), img); err != nil {
		p.Fatal(err)
	}
	return p.tag(ref).Name()
}

func (p *pushed) index(ref string, images ...v1.Image) string {
	p.Helper()
	if err := remote.WriteIndex(p.tag(ref), runtimetest.Index(p.T, images...)); err != nil {
		p.Fatal(err)
	}
	return p.tag(ref).Name()
}

// fetched reports whether the layer of an image was asked for since the last push.
func (p *pushed) fetched(img v1.Image) bool {
	layers, err := img.Layers()
	if err != nil {
		p.Fatal(err)
	}
	d, err := layers[0].Digest()
	if err != nil {
		p.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.asked, func(path string) bool { return strings.HasSuffix(path, "/blobs/"+d.String()) })
}

// TestForeignImages checks that an image that exists only for other machines is refused with all that helps, before its layers
// are loaded; one that exists for this machine too is reported with all its platforms.
func TestForeignImages(t *testing.T) {
	other, sibling := "arm64", "arm/v7"
	if runtime.GOARCH != "amd64" {
		other, sibling = "s390x", "ppc64le"
	}
	r := private(t)
	ctx := context.Background()
	reg := newRegistry(t)
	busybox := runtimetest.Busybox(t)
	refused := func(ref string, have ...string) {
		t.Helper()
		reg.mu.Lock()
		reg.asked = nil
		reg.mu.Unlock()
		_, err := r.Pull(ctx, ref, nil)
		var e *cruntime.PlatformError
		if !errors.As(err, &e) {
			t.Fatalf("pull of %s: %v", ref, err)
		}
		if diff := cmp.Diff(&cruntime.PlatformError{Image: ref, Have: have, Machine: runtime.GOARCH}, e); diff != "" && runtime.GOARCH != "arm" {
			t.Error(diff)
		}
		if reg.fetched(busybox) {
			t.Errorf("layers of %s were loaded in vain", ref)
		}
		if _, err := r.Image(ctx, ref); !errors.Is(err, cruntime.ErrNotFound) {
			t.Errorf("afterwards %s is %v", ref, err)
		}
	}
	known := func(ref string, pulled bool, want ...string) {
		t.Helper()
		list, p, err := r.Platforms(ctx, ref)
		if err != nil || p != pulled || !slices.Equal(list, want) {
			t.Errorf("%s is for %v, pulled %v, %v; want %v, %v", ref, list, p, err, want, pulled)
		}
	}

	refused(reg.index("team/index:v1", runtimetest.Built(t, busybox, other), runtimetest.Built(t, busybox, sibling)), sorted(other, sibling)...)
	single := reg.image("team/single:v1", runtimetest.Built(t, busybox, other))
	refused(single, other)

	// The tag moves to what fits, and the next pull finds it.
	reg.index("team/single:v1", runtimetest.Built(t, busybox, other), busybox)
	if _, err := r.Pull(ctx, single, nil); err != nil {
		t.Fatal(err)
	}
	own := names([]ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}})[0]
	known(single, true, sorted(other, own)...)
	one := reg.image("team/one:v1", busybox)
	if _, err := r.Pull(ctx, one, nil); err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "arm" { // whose images have a variant
		known(one, true, own)
		known(testImage, false, own) // imported by private
	}

	// What was brought to the node for another machine is not taken for the image.
	tar := runtimetest.Tar(t, "petrel.test/foreign:1", runtimetest.Built(t, busybox, other))
	if _, err := r.Import(ctx, tar); err == nil || !strings.Contains(err.Error(), "nothing for this machine") {
		t.Errorf("import of a foreign image: %v", err)
	}
	if _, _, err := r.Platforms(ctx, "petrel.test/absent:1"); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("absent image: %v", err)
	}
}

func sorted(list ...string) []string {
	slices.Sort(list)
	return list
}

// blobs is a content store in memory.
type blobs map[digest.Digest][]byte

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

func (b blobs) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	data, ok := b[desc.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return blob{bytes.NewReader(data)}, nil
}

func (b blobs) put(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(data)
	b[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b blobs) image(t *testing.T, os, arch, variant string) ocispec.Descriptor {
	config := b.put(t, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: os, Architecture: arch, Variant: variant}})
	return b.put(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config})
}

func (b blobs) index(t *testing.T, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return b.put(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
}

func on(d ocispec.Descriptor, os, arch, variant string) ocispec.Descriptor {
	d.Platform = &ocispec.Platform{OS: os, Architecture: arch, Variant: variant}
	return d
}

func TestPlatformsOf(t *testing.T) {
	b := blobs{}
	away := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("away"), Size: 4}
	attestation := on(away, "unknown", "unknown", "")
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	signature := away
	signature.ArtifactType = "application/vnd.example.signature"
	typed := on(away, "linux", "arm64", "")
	typed.ArtifactType = ocispec.MediaTypeImageConfig // as some tools write it
	huge := b.image(t, "linux", "arm64", "")
	huge.Size = maxDescription + 1
	var many []ocispec.Descriptor
	for range 2 * maxListed {
		many = append(many, on(away, "linux", "arch"+digest.FromString(strings.Repeat("x", len(many))).Encoded()[:8], ""))
	}
	deep := b.image(t, "linux", "arm64", "")
	for range maxNesting + 1 {
		deep = b.index(t, deep)
	}
	for what, c := range map[string]struct {
		of   ocispec.Descriptor
		want string
	}{
		"a single manifest":                     {b.image(t, "linux", "arm", ""), "arm/v7"},
		"an index, whose manifests need not be": {b.index(t, on(away, "linux", "arm64", "v8"), on(away, "linux", "arm", "v6"), on(away, "windows", "amd64", "")), "arm/v6 arm64 windows/amd64"},
		"attestations and signatures":           {b.index(t, on(away, "linux", "arm64", ""), attestation, signature), "arm64"},
		"an image that says it is one":          {b.index(t, typed), "arm64"},
		"twice the same":                        {b.index(t, on(away, "linux", "arm64", "v8"), on(away, "linux", "arm64", "")), "arm64"},
		"an index that leaves it to manifests":  {b.index(t, b.image(t, "linux", "riscv64", ""), on(away, "linux", "arm64", "")), "arm64 riscv64"},
		"half an answer":                        {b.index(t, away, on(away, "linux", "arm64", "")), ""},
		"an index in an index":                  {b.index(t, b.index(t, on(away, "linux", "arm64", ""))), "arm64"},
		"a tower of indexes":                    {deep, ""},
		"a manifest that is no image":           {b.image(t, "", "", ""), ""},
		"a manifest that is not here":           {away, ""},
		"a manifest too large to be one":        {huge, ""},
		"something else":                        {b.put(t, "application/octet-stream", 1), ""},
	} {
		if got := strings.Join(names(platformsOf(context.Background(), b, c.of, maxNesting)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	if got := names(platformsOf(context.Background(), b, b.index(t, many...), maxNesting)); len(got) != maxListed {
		t.Errorf("%d platforms", len(got))
	}
}

// TestLargeDocuments checks that an index, manifest or configuration that is too large to be read whole is not even fetched; a
// layer may have any size.
func TestLargeDocuments(t *testing.T) {
	c, err := client.New("", client.WithServices(client.WithContentStore(nil)))
	if err != nil {
		t.Fatal(err)
	}
	fetched := 0
	handle := (&Runtime{client: c}).refuseForeign(question{ref: "img:1", as: toRun, coming: &underway.Pull{}})(images.HandlerFunc(func(context.Context, ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		fetched++
		return nil, nil
	}))
	for _, kind := range []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig} {
		_, err := handle.Handle(t.Context(), ocispec.Descriptor{MediaType: kind, Size: maxDocument + 1})
		if !errors.Is(err, cruntime.ErrConfig) || !strings.Contains(err.Error(), "4194305 bytes") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if fetched > 0 {
		t.Errorf("%d of them were fetched", fetched)
	}
	if _, err := handle.Handle(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Size: 1 << 40}); err != nil || fetched != 1 {
		t.Errorf("a layer: %v", err)
	}
}

package underway

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestDescribe checks what a registry may claim: sums do not overflow, a layer that is there twice counts once, and an image of too many is
// of unknown size.
func TestDescribe(t *testing.T) {
	blob := func(name string, size int64) ocispec.Descriptor {
		return ocispec.Descriptor{Digest: digest.FromString(name), Size: size}
	}
	var p Pulls
	c := p.Begin("img:1")
	sum := func(layers ...ocispec.Descriptor) (n int64) {
		c.Blobs = nil
		p.Describe(c, ocispec.Manifest{Config: blob("config", 7), Layers: layers})
		for _, b := range p.List()[0].Blobs {
			n += b.Size
		}
		return n
	}
	if got := sum(blob("a", 10), blob("b", -5), blob("a", 10)); got != 17 {
		t.Errorf("%d bytes, want 17", got)
	}
	var many []ocispec.Descriptor
	for i := range maxBlobs - 1 {
		many = append(many, blob(string(rune('a'+i)), 1<<63-1))
	}
	if got := sum(many...); got != 7+(maxBlobs-1)*maxBlobSize {
		t.Errorf("%d bytes of huge layers", got)
	}
	if got := sum(append(many, blob("one more", 1))...); got != 0 {
		t.Errorf("%d bytes of too many layers", got)
	}
	if p.End(c); len(p.List()) != 0 {
		t.Error("a pull that has ended is listed")
	}
}

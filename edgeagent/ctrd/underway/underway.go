// Package underway knows the images that are on their way to the node. It notes only what each consists of; how much of that is here
// containerd is asked on demand, so that pulls which nobody looks at cost nothing.
package underway

import (
	"cmp"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxBlobs bounds the parts of an image that are asked about: Docker makes no image with more than 127 layers. How far a larger one
	// is stays unknown.
	maxBlobs = 128
	// maxBlobSize bounds what a description may claim, in bytes, so that sums do not overflow.
	maxBlobSize = 1 << 50
)

// Pulls are those that run. The zero value is ready.
type Pulls struct {
	mu      sync.Mutex
	running map[*Pull]bool // guarded by mu; as many as pulls have slots
}

// Pull is one of them.
type Pull struct {
	Image string
	Since time.Time
	// Blobs are the parts of the image, each digest once, with sizes of which the sum does not overflow; nil: not known yet, or too many.
	// Guarded by the mu of its Pulls, and replaced as a whole.
	Blobs []ocispec.Descriptor
}

// Begin notes that a pull begins.
func (p *Pulls) Begin(image string) *Pull {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		p.running = map[*Pull]bool{}
	}
	c := &Pull{Image: image, Since: time.Now()}
	p.running[c] = true
	return c
}

// End notes that it has ended.
func (p *Pulls) End(c *Pull) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, c)
}

// Describe notes what an image consists of, once its manifest is here.
func (p *Pulls) Describe(c *Pull, m ocispec.Manifest) {
	if len(m.Layers) >= maxBlobs {
		return
	}
	seen := map[string]bool{}
	var blobs []ocispec.Descriptor
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if id := d.Digest.String(); !seen[id] {
			seen[id] = true
			d.Size = min(max(d.Size, 0), maxBlobSize)
			blobs = append(blobs, d)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Blobs = blobs
}

// List returns copies of the pulls that run, the oldest first.
func (p *Pulls) List() []Pull {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Pull
	for c := range p.running {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Pull) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Image, b.Image)) })
	return out
}

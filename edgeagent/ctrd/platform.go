package ctrd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// labelPulled marks images that came from their registry. Whatever else is in the store (imported, or put there by other
// tools) describes this copy only.
const labelPulled = "petrel.dev/pulled"

// Documents that describe an image are small; one that is not is not looked into.
const (
	maxDescription = 1 << 20 // bytes
	maxListed      = 64      // platforms
	maxNesting     = 3       // indexes in indexes
	maxDocument    = 4 << 20 // bytes of an index, manifest or configuration that is read at all; registries have the same bound
)

// describable refuses a document of an image that is too large to be read whole.
func describable(ref string, desc ocispec.Descriptor) error {
	if desc.Size <= maxDocument {
		return nil
	}
	return fmt.Errorf("%w: image %s: its %s has %d bytes, more than %d; build it anew", cruntime.ErrConfig, ref, desc.MediaType, desc.Size, maxDocument)
}

// ArchVariant is the variant of this machine's architecture, "v6" of arm; empty where all variants run the same.
func ArchVariant() string {
	if spec := platforms.Normalize(platforms.DefaultSpec()); spec.Architecture == "arm" {
		return spec.Variant
	}
	return ""
}

// Platforms returns the platforms that an image exists for, as far as this node knows: an index names them all, a single manifest
// is of one. pulled: the registry says so; otherwise it is known of the node's own copy only. ErrNotFound when the image is
// not here, and none when it names none.
func (r *Runtime) Platforms(ctx context.Context, ref string) (list []string, pulled bool, err error) {
	ctx = r.ns(ctx)
	img, err := r.image(ctx, ref)
	if err != nil {
		return nil, false, err
	}
	return names(platformsOf(ctx, r.client.ContentStore(), img.Target(), maxNesting)), img.Labels()[labelPulled] != "", nil
}

// platformsOf reads the platforms of a manifest or an index, and nothing when one of them cannot be found out: half an
// answer would exclude what exists. Attestations and signatures are no images.
func platformsOf(ctx context.Context, store content.Provider, desc ocispec.Descriptor, depth int) (list []ocispec.Platform) {
	switch {
	case images.IsManifestType(desc.MediaType):
		var m ocispec.Manifest
		var config ocispec.Platform
		if read(ctx, store, desc, &m) && read(ctx, store, m.Config, &config) && config.Architecture != "" && config.OS != "" {
			list = append(list, platforms.Normalize(config))
		}
		return list
	case !images.IsIndexType(desc.MediaType) || depth == 0:
		return nil
	}
	var index ocispec.Index
	if !read(ctx, store, desc, &index) {
		return nil
	}
	for _, m := range index.Manifests {
		switch {
		case m.Annotations["vnd.docker.reference.type"] != "", m.ArtifactType != "" && !images.IsConfigType(m.ArtifactType), m.Platform != nil && m.Platform.OS == "unknown":
			continue
		case m.Platform != nil && m.Platform.Architecture != "":
			list = append(list, platforms.Normalize(*m.Platform))
			continue
		}
		below := platformsOf(ctx, store, m, depth-1)
		if below == nil {
			return nil
		}
		list = append(list, below...)
	}
	return list
}

func read(ctx context.Context, store content.Provider, desc ocispec.Descriptor, into any) bool {
	if desc.Size > maxDescription {
		return false
	}
	b, err := content.ReadBlob(ctx, store, desc)
	return err == nil && json.Unmarshal(b, into) == nil
}

// names is the platforms as people and the hub's scheduler call them: "arm64", "arm/v7"; with the system where it is not
// Linux.
func names(list []ocispec.Platform) (out []string) {
	for _, p := range list {
		name := p.Architecture
		if p.Variant != "" {
			name += "/" + p.Variant
		}
		if p.OS != "linux" {
			name = p.OS + "/" + name
		}
		out = append(out, name)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxListed)]
}

// foreign is the error of an image that is for other machines only; nil when it fits, or names no platform.
func foreign(ref string, list []ocispec.Platform) error {
	if len(list) == 0 || slices.ContainsFunc(list, platforms.Default().Match) {
		return nil
	}
	return &cruntime.PlatformError{Image: ref, Have: names(list), Machine: names([]ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())})[0]}
}

// use is what an image is wanted for.
type use int

const (
	toRun   use = iota // the root file system of a container
	toMount            // a volume
)

// fits returns the error of an image that is for other machines only. One that is mounted is data: whatever machine a single manifest names
// is as good as another; of an index containerd takes the entry for this machine, so that must be there.
func (u use) fits(ref string, desc ocispec.Descriptor, list []ocispec.Platform) error {
	if u == toMount && images.IsManifestType(desc.MediaType) {
		return nil
	}
	return foreign(ref, list)
}

// refuseForeign ends a pull of an image that is for other machines as soon as its description is here, before any layer:
// containerd itself would only look at the platforms of an index. What the image consists of is noted on the way.
func (r *Runtime) refuseForeign(q question) func(images.Handler) images.Handler {
	store := r.client.ContentStore()
	return func(h images.Handler) images.Handler {
		return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) || images.IsConfigType(desc.MediaType) {
				if err := describable(q.ref, desc); err != nil {
					return nil, err
				}
			}
			children, err := h.Handle(ctx, desc)
			if err == nil && images.IsManifestType(desc.MediaType) {
				var m ocispec.Manifest
				if read(ctx, store, desc, &m) && m.Config.Size <= maxDescription {
					if _, err := h.Handle(ctx, m.Config); err != nil {
						return nil, fmt.Errorf("image configuration: %w", err)
					}
					r.pulls.Describe(q.coming, m)
				}
			}
			if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
				if e := q.as.fits(q.ref, desc, platformsOf(ctx, store, desc, maxNesting)); e != nil {
					return nil, e
				}
			}
			return children, err
		})
	}
}

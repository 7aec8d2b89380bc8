package ctrd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"petrel.dev/petrel/edgeagent/storage"
)

// ImageDir is a directory on the file system that images and containers are on.
func (r *Runtime) ImageDir() string { return r.imageDir }

// Collection says which images may go.
type Collection struct {
	// Keep names images of pods that belong here, running or not, as the pods write them.
	Keep []string
	// LastUsed is when images were last seen in use, by full name.
	LastUsed map[string]time.Time
	// MinAge is how long an image must have been here, and unused.
	MinAge time.Duration
	// Enough reports whether enough has gone; nil: all that may go does.
	Enough func() bool
}

// Collect removes images that no container and no pod uses and that nobody has imported, the one that was used longest
// ago first, and returns their names.
func (r *Runtime) Collect(ctx context.Context, c Collection) ([]string, error) {
	list, err := r.storedImages(ctx, c)
	if err != nil {
		return nil, err
	}
	ctx = r.ns(ctx)
	var gone []string
	for _, i := range storage.Collectable(list, time.Now(), c.MinAge) {
		if c.Enough != nil && c.Enough() {
			break
		}
		if err := r.client.ImageService().Delete(ctx, i.Name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			return gone, fmt.Errorf("image %s: %w", i.Name, err)
		}
		gone = append(gone, i.Name)
	}
	return gone, nil
}

// storedImages lists the images with what decides about each.
func (r *Runtime) storedImages(ctx context.Context, c Collection) ([]storage.Image, error) {
	ctx = r.ns(ctx)
	used := map[string]bool{}
	all, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("containers: %w", err)
	}
	for _, c := range all {
		used[c.Image] = true
	}
	for _, ref := range c.Keep {
		if name, err := fullName(ref); err == nil {
			used[name] = true
		}
	}
	list, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	out := make([]storage.Image, 0, len(list))
	for _, i := range list {
		out = append(out, storage.Image{Name: i.Name, Pinned: i.Labels[labelPinned] == "pinned", InUse: used[i.Name],
			LastUsed: c.LastUsed[i.Name], CreatedAt: i.UpdatedAt})
	}
	return out, nil
}

// FullNames are the names under which images are kept, of names as pods write them; what is no name is left out.
func FullNames(refs []string) []string {
	var out []string
	for _, ref := range refs {
		if name, err := fullName(ref); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// DiskUsage implements podrun.Runtime.
func (r *Runtime) DiskUsage(ctx context.Context, id string) (int64, error) {
	ctx = r.ns(ctx)
	snapshots := r.client.SnapshotService(r.snapshotter)
	mounts, err := snapshots.Mounts(ctx, id)
	if err != nil {
		return 0, notFound(err)
	}
	for _, m := range mounts {
		for _, o := range m.Options {
			if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
				u, err := storage.Walk(ctx, upper)
				return u.Bytes, err
			}
		}
	}
	// A plain copy of the image, or the image itself and nothing written: what is more than the image's counts.
	info, err := snapshots.Stat(ctx, id)
	if err != nil {
		return 0, notFound(err)
	}
	if len(mounts) != 1 || mounts[0].Source == "" {
		return 0, fmt.Errorf("container %s: its file system cannot be measured with the snapshotter %s", id, r.snapshotter)
	}
	u, err := storage.Walk(ctx, mounts[0].Source)
	if err != nil {
		return 0, err
	}
	parent, err := snapshots.Usage(ctx, info.Parent)
	if err != nil {
		return 0, notFound(err)
	}
	return max(u.Bytes-parent.Size, 0), nil
}

// roomy is a transport whose answers end with an error when the disk has no room for more: a layer that does not fit must
// not take what the pods need.
type roomy struct {
	http.RoundTripper
	spare func() error
}

// RoundTrip implements http.RoundTripper.
func (r roomy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &roomyBody{ReadCloser: resp.Body, spare: r.spare, left: roomyPortion}
	}
	return resp, err
}

// roomyPortion is how many bytes come between two looks at the disk.
const roomyPortion = 8 << 20

type roomyBody struct {
	io.ReadCloser
	spare func() error
	left  int // bytes of the current portion
}

func (b *roomyBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		if err := b.spare(); err != nil {
			return 0, err
		}
		b.left = roomyPortion
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= n
	return n, err
}

package ctrd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	layers "github.com/opencontainers/image-spec/identity"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// labelRoot keeps a snapshot, and the layers below it, from containerd's garbage collection.
const labelRoot = "containerd.io/gc.root"

// VolumeImages are the runtime's images as volumes of pods need them: whichever machine they are for, and as directories.
type VolumeImages struct{ r *Runtime }

// VolumeImages returns the images as volumes need them.
func (r *Runtime) VolumeImages() VolumeImages { return VolumeImages{r} }

// Image implements pull.Runtime.
func (v VolumeImages) Image(ctx context.Context, ref string) (cruntime.Image, error) {
	return v.r.present(ctx, ref, toMount)
}

// Pull implements pull.Runtime.
func (v VolumeImages) Pull(ctx context.Context, ref string, creds []cruntime.Credential) (cruntime.Image, error) {
	return v.r.fetch(ctx, ref, toMount, creds)
}

// viewKey names the snapshot of a pod's volume.
func viewKey(podUID, volume string) string { return "petrel-volume-" + podUID + "-" + volume }

// MountImage implements volume.Images.
func (v VolumeImages) MountImage(ctx context.Context, podUID, volume, ref, dir string) error {
	r := v.r
	ctx = r.ns(ctx)
	key := viewKey(podUID, volume)
	mounts, err := r.client.SnapshotService(r.snapshotter).Mounts(ctx, key)
	if errdefs.IsNotFound(err) {
		mounts, err = v.view(ctx, key, podUID, ref)
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	if err := mount.All(mounts, dir); err != nil {
		_ = mount.UnmountAll(dir, 0) // half of it; the next try begins anew
		return fmt.Errorf("image %s: mount: %w", ref, err)
	}
	return nil
}

// view makes a snapshot of an image that nobody writes to, and that stays until DropImage, whatever becomes of the image's name.
func (v VolumeImages) view(ctx context.Context, key, podUID, ref string) ([]mount.Mount, error) {
	r := v.r
	ctx, done, err := r.client.WithLease(ctx) // until the snapshot is there nothing else holds the layers
	if err != nil {
		return nil, err
	}
	defer func() { _ = done(ctx) }()
	img, err := r.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := describable(ref, img.Target()); err != nil {
		return nil, err
	}
	if err := img.Unpack(ctx, r.snapshotter); err != nil { // for another snapshotter so far, or the snapshots were collected
		return nil, fmt.Errorf("unpack: %w", err)
	}
	diffs, err := img.RootFS(ctx)
	if err != nil {
		return nil, fmt.Errorf("layers: %w", err)
	}
	labels := map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339), labelPod: podUID}
	return r.client.SnapshotService(r.snapshotter).View(ctx, key, layers.ChainID(diffs).String(), snapshots.WithLabels(labels))
}

// DropImage implements volume.Images.
func (v VolumeImages) DropImage(ctx context.Context, podUID, volume string) error {
	ctx = v.r.ns(ctx)
	if err := v.r.client.SnapshotService(v.r.snapshotter).Remove(ctx, viewKey(podUID, volume)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("image volume %s: %w", volume, err)
	}
	return nil
}

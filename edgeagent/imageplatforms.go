package edgeagent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/ctrd"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// maxImageReports is how many images a node reports to the hub; the hub takes no more.
const maxImageReports = 256

// platformReader is the part of the image store that imagePlatforms needs. Platforms returns the platforms that an image in
// the store exists for, and whether a pull has found them; cruntime.ErrNotFound when the image is not there.
type platformReader interface {
	Platforms(ctx context.Context, ref string) (list []string, pulled bool, err error)
}

// imagePlatforms reports to the hub for which platforms the images of this node's pods exist: either because the image is
// here, or because a pull has found nothing for this machine. An image is inspected when it comes into use and after each
// pull, never by the clock. Its report is withdrawn when no pod names the image any more.
type imagePlatforms struct {
	// Set by newImagePlatforms; never nil.
	store  platformReader
	report func(wire.Object) error
	forget func(wire.ID) error

	mu sync.Mutex
	// reported holds the names of the pods' images, at most maxImageReports, and whether there is a report for each.
	// Guarded by mu.
	reported map[string]bool
}

func newImagePlatforms(store platformReader, report func(wire.Object) error, forget func(wire.ID) error) *imagePlatforms {
	return &imagePlatforms{store: store, report: report, forget: forget, reported: map[string]bool{}}
}

// want takes the images that the node's pods name now. It returns those without a report, for inspect.
func (k *imagePlatforms) want(set *desired.Set) (unreported []string) {
	wanted := map[string]bool{}
	for _, p := range set.Pods {
		for _, image := range kube.PodImages(p) {
			wanted[image] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, reported := range k.reported {
		if !wanted[name] {
			delete(k.reported, name)
			if reported {
				_ = k.forget(imageReportID(name)) // it cannot fail
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if reported, ok := k.reported[name]; !reported && (ok || len(k.reported) < maxImageReports) {
			k.reported[name] = false
			unreported = append(unreported, name)
		}
	}
	return unreported
}

// inspect reports those of the images that are here already. A report that a pull has made meanwhile is newer, and stays.
func (k *imagePlatforms) inspect(ctx context.Context, names []string) {
	for _, name := range names {
		if r, ok := k.stored(ctx, name); ok {
			k.set(name, r, false)
		}
	}
}

// stored returns the report for an image in the store; false when it is not there, or its platforms are unknown.
func (k *imagePlatforms) stored(ctx context.Context, name string) (wire.ImageReport, bool) {
	list, pulled, err := k.store.Platforms(ctx, name)
	return wire.ImageReport{Platforms: list, Local: !pulled}, err == nil && len(list) > 0
}

// pullEnded reports what a pull has found; err is the pull's. Other errors than a *cruntime.PlatformError say nothing of
// the image.
func (k *imagePlatforms) pullEnded(ctx context.Context, name string, err error) {
	var e *cruntime.PlatformError
	if errors.As(err, &e) {
		k.set(name, wire.ImageReport{Platforms: e.Have}, true)
	} else if err == nil {
		if r, ok := k.stored(ctx, name); ok {
			k.set(name, r, true)
		}
	}
}

// set reports r for an image that pods name; when there is a report already, only if replace.
func (k *imagePlatforms) set(name string, r wire.ImageReport, replace bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if reported, wanted := k.reported[name]; !wanted || reported && !replace {
		return
	}
	data, err := json.Marshal(r)
	if err == nil && k.report(wire.Object{ID: imageReportID(name), Data: data}) == nil {
		k.reported[name] = true
	}
}

func imageReportID(name string) wire.ID { return wire.ID{Kind: wire.KindImage, UID: name} }

// reportingRuntime is the container runtime for pods: the end of each pull goes to images.
type reportingRuntime struct {
	*ctrd.Runtime
	images *imagePlatforms
}

func (r reportingRuntime) Pull(ctx context.Context, ref string, creds []cruntime.Credential) (cruntime.Image, error) {
	img, err := r.Runtime.Pull(ctx, ref, creds)
	r.images.pullEnded(ctx, ref, err)
	return img, err
}

// reportingImages are images as volumes: the end of each pull goes to images.
type reportingImages struct {
	ctrd.VolumeImages
	images *imagePlatforms
}

func (r reportingImages) Pull(ctx context.Context, ref string, creds []cruntime.Credential) (cruntime.Image, error) {
	img, err := r.VolumeImages.Pull(ctx, ref, creds)
	r.images.pullEnded(ctx, ref, err)
	return img, err
}

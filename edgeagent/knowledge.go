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
	"petrel.dev/petrel/internal/wire"
)

// maxKnown is how many images a node tells the hub of; the hub takes no more.
const maxKnown = 256

// platformReader is the part of the image store that knowledge needs.
type platformReader interface {
	Platforms(ctx context.Context, ref string) (list []string, pulled bool, err error)
}

// knowledge is what this node tells the hub of the images of its pods: for which platforms each exists, be it that the image
// is here, or that a pull has found nothing for this machine. It is looked up when an image comes into use and after each
// pull, never by the clock, and taken back when no pod names the image any more.
type knowledge struct {
	store  platformReader
	report func(wire.Object) error
	forget func(wire.ID) error

	mu    sync.Mutex
	names map[string]bool // of the pods' images, and whether anything is told of them
}

func newKnowledge(store platformReader, report func(wire.Object) error, forget func(wire.ID) error) *knowledge {
	return &knowledge{store: store, report: report, forget: forget, names: map[string]bool{}}
}

// want takes the images that the node's pods name now. It returns those of which nothing is told yet, for look.
func (k *knowledge) want(set *desired.Set) (untold []string) {
	wanted := map[string]bool{}
	for _, p := range set.Pods {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			wanted[c.Image] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, told := range k.names {
		if !wanted[name] {
			delete(k.names, name)
			if told {
				_ = k.forget(imageReport(name)) // it cannot fail
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if told, ok := k.names[name]; !told && (ok || len(k.names) < maxKnown) {
			k.names[name] = false
			untold = append(untold, name)
		}
	}
	return untold
}

// look tells of images that are here already. What a pull has told meanwhile is newer.
func (k *knowledge) look(ctx context.Context, untold []string) {
	for _, name := range untold {
		if r, ok := k.here(ctx, name); ok {
			k.tell(name, r, false)
		}
	}
}

func (k *knowledge) here(ctx context.Context, name string) (wire.ImageReport, bool) {
	list, pulled, err := k.store.Platforms(ctx, name)
	return wire.ImageReport{Platforms: list, Local: !pulled}, err == nil && len(list) > 0
}

// pulled takes the end of a pull.
func (k *knowledge) pulled(ctx context.Context, name string, err error) {
	var e *cruntime.PlatformError
	if errors.As(err, &e) {
		k.tell(name, wire.ImageReport{Platforms: e.Have}, true)
	} else if err == nil {
		if r, ok := k.here(ctx, name); ok {
			k.tell(name, r, true)
		}
	}
}

func (k *knowledge) tell(name string, r wire.ImageReport, newest bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if told, wanted := k.names[name]; !wanted || told && !newest {
		return
	}
	data, err := json.Marshal(r)
	if err == nil && k.report(wire.Object{ID: imageReport(name), Data: data}) == nil {
		k.names[name] = true
	}
}

func imageReport(name string) wire.ID { return wire.ID{Kind: wire.KindImage, UID: name} }

// telling is the runtime as the pods use it; what their pulls find out is told.
type telling struct {
	*ctrd.Runtime
	known *knowledge
}

func (t telling) Pull(ctx context.Context, ref string, creds []cruntime.Credential) (cruntime.Image, error) {
	img, err := t.Runtime.Pull(ctx, ref, creds)
	t.known.pulled(ctx, ref, err)
	return img, err
}

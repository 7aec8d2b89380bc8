package images

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	// linger is how long a report counts after the last pod with the image is gone: long enough for the pod's successors to
	// be placed by it, short enough for a tag that has been pushed again to be tried again.
	linger = 10 * time.Minute
	// Bounds of what one node may report.
	maxImages    = 256
	maxName      = 512 // bytes
	maxPlatforms = 64
	maxPlatform  = 32 // bytes
)

// Images are the image reports. All methods but Subscribe are for one goroutine, which calls the subscribers; fields without another
// note are owned by it.
type Images struct {
	uses    func(node, image string) bool // reports whether a pod with the image is bound to the node; never nil
	reports map[string]map[string]*report // by image, by node; none is empty
	count   map[string]int                // of reports, by node; none is 0

	mu          sync.Mutex
	known       map[string][]string                                // what subscribers have got: sorted architectures, by image; guarded by mu
	subscribers map[int]func(image string, architectures []string) // by id; guarded by mu
	located     map[string]map[string]bool                         // the nodes whose report counts, by image; none is empty; guarded by mu
	locators    map[int]func(image, node string, has bool)         // by id; guarded by mu
	next        int                                                // id of the next subscriber of either kind; grows only; guarded by mu
}

// report is what one node has reported of one image.
type report struct {
	platforms []string
	local     bool      // of a copy that was imported
	set       bool      // and not cleared since
	used      bool      // a pod with the image is bound to the node
	until     time.Time // it counts until then, though not current; zero: no longer
}

// current reports whether the report counts, not counting its linger.
func (r *report) current() bool { return r.set && r.used }

// counts reports whether the report of an image counts now.
func (r *report) counts(now time.Time, image string) bool {
	return r.current() || !r.until.IsZero() && (now.Before(r.until) || byDigest(image))
}

// New returns Images without reports. uses reports whether a pod with an image is bound to a node, as of the last Change.
func New(uses func(node, image string) bool) *Images {
	return &Images{uses: uses, reports: map[string]map[string]*report{}, count: map[string]int{}, known: map[string][]string{},
		subscribers: map[int]func(string, []string){}, located: map[string]map[string]bool{}, locators: map[int]func(string, string, bool){}}
}

// Subscribe calls f with the architectures that images are known to exist for: with all that is known, and then with each
// change, one call at a time, until ctx ends. None: nothing is known any more. Any goroutine may call it.
func (i *Images) Subscribe(ctx context.Context, f func(image string, architectures []string)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id := i.next
	i.next++
	i.subscribers[id] = f
	for image, a := range i.known {
		f(image, a)
	}
	context.AfterFunc(ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.subscribers, id)
	})
}

// SubscribeNodes calls f with the nodes that have an image, as far as they report it: with all that are known, and then with each
// change, one call at a time, until ctx ends. Any goroutine may call it.
func (i *Images) SubscribeNodes(ctx context.Context, f func(image, node string, has bool)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id := i.next
	i.next++
	i.locators[id] = f
	for image, nodes := range i.located {
		for node := range nodes {
			f(image, node, true)
		}
	}
	context.AfterFunc(ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.locators, id)
	})
}

// Report takes in what a node's batch reports of images, and returns when to call Expire; zero: never.
func (i *Images) Report(now time.Time, node string, b *wire.Batch) (next time.Time) {
	for _, id := range b.Deletes {
		if id.Kind == wire.KindImage {
			i.clear(now, node, id.UID)
		}
	}
	for _, p := range b.Puts {
		if p.Kind == wire.KindImage {
			i.set(now, node, p.UID, p.Data, i.uses(node, p.UID))
		}
	}
	return i.Expire(now)
}

// Change follows which images are used where, after a pod has come, gone or changed. It returns when to call Expire; zero:
// this change needs no call.
func (i *Images) Change(now time.Time, old, new *corev1.Pod) (next time.Time) {
	before, after := imagesOf(old), imagesOf(new)
	if old != nil && new != nil && old.Spec.NodeName == new.Spec.NodeName && slices.Equal(before, after) {
		return time.Time{}
	}
	for _, image := range before {
		if node := old.Spec.NodeName; i.reports[image][node] != nil {
			i.use(now, node, image, i.uses(node, image))
			next = now.Add(linger)
		}
	}
	for _, image := range after {
		i.use(now, new.Spec.NodeName, image, true)
	}
	return next
}

// Used reports whether a pod uses an image.
func Used(p *corev1.Pod, image string) bool { return slices.Contains(imagesOf(p), image) }

func imagesOf(p *corev1.Pod) []string {
	if p == nil {
		return nil
	}
	return kube.PodImages(p)
}

// set takes a node's report of an image. used: a pod with that image is bound to the node. A report that cannot be decoded
// clears the one before, without an error: the node may be of a later version.
func (i *Images) set(now time.Time, node, image string, data []byte, used bool) {
	var rep wire.ImageReport
	if len(image) > maxName || json.Unmarshal(data, &rep) != nil || len(rep.Platforms) == 0 || len(rep.Platforms) > maxPlatforms ||
		slices.ContainsFunc(rep.Platforms, func(p string) bool { return p == "" || len(p) > maxPlatform }) {
		i.clear(now, node, image)
		return
	}
	r := i.reports[image][node]
	if r == nil {
		if i.count[node] >= maxImages && !i.makeRoom(now, node) {
			return
		}
		if i.reports[image] == nil {
			i.reports[image] = map[string]*report{}
		}
		r = &report{}
		i.reports[image][node] = r
		i.count[node]++
	}
	r.platforms, r.local, r.set, r.used = rep.Platforms, rep.Local, true, used
	i.update(now, image)
}

// clear removes a report: the node has no pod with the image any more, or has just started.
func (i *Images) clear(now time.Time, node, image string) {
	if r := i.reports[image][node]; r != nil {
		i.change(now, image, r, false, r.used)
	}
}

// use records whether a pod with the image is bound to the node.
func (i *Images) use(now time.Time, node, image string, used bool) {
	if r := i.reports[image][node]; r != nil && r.used != used {
		i.change(now, image, r, r.set, used)
	}
}

// change sets what decides whether a report is current. One that no longer is lingers.
func (i *Images) change(now time.Time, image string, r *report, set, used bool) {
	before := r.current()
	r.set, r.used = set, used
	if before && !r.current() {
		r.until = now.Add(linger)
	}
	i.update(now, image)
}

// Forget drops all reports of a node that is gone.
func (i *Images) Forget(now time.Time, node string) {
	if i.count[node] == 0 {
		return
	}
	for image, by := range i.reports {
		if by[node] != nil {
			delete(by, node)
			i.update(now, image)
		}
	}
	delete(i.count, node)
}

// Expire ends the reports whose linger is over, and returns when the next one's is; zero: none lingers.
func (i *Images) Expire(now time.Time) (next time.Time) {
	for image, by := range i.reports {
		due := false
		for _, r := range by {
			if r.current() || r.until.IsZero() || byDigest(image) {
				continue
			}
			if now.Before(r.until) {
				if next.IsZero() || r.until.Before(next) {
					next = r.until
				}
				continue
			}
			due, r.until = true, time.Time{}
		}
		if due {
			i.update(now, image)
		}
	}
	return next
}

// makeRoom drops the node's report that has not been current for longest, if there is one.
func (i *Images) makeRoom(now time.Time, node string) bool {
	var oldest *report
	var from string
	for image, by := range i.reports {
		if r := by[node]; r != nil && !r.current() && (oldest == nil || r.until.Before(oldest.until)) {
			oldest, from = r, image
		}
	}
	if oldest == nil {
		return false
	}
	delete(i.reports[from], node)
	i.count[node]--
	i.update(now, from)
	return true
}

func byDigest(image string) bool { return strings.Contains(image, "@sha256:") }

// update computes the known architectures of an image, drops the reports that no longer count, and calls the subscribers on a
// change.
func (i *Images) update(now time.Time, image string) {
	var known []string
	registry := false
	for node, r := range i.reports[image] {
		if !r.set && !r.counts(now, image) {
			delete(i.reports[image], node)
			if i.count[node]--; i.count[node] == 0 {
				delete(i.count, node)
			}
		}
		if r.counts(now, image) {
			registry = registry || !r.local
			known = append(known, r.platforms...)
		}
	}
	if len(i.reports[image]) == 0 {
		delete(i.reports, image)
	}
	if !registry {
		known = nil
	}
	slices.Sort(known)
	i.publish(image, slices.Compact(known))
	i.locate(now, image)
}

// locate calls the subscribers with the nodes that have an image now and had it not before, or the other way round.
func (i *Images) locate(now time.Time, image string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	was := i.located[image]
	notify := func(node string, has bool) {
		for _, f := range i.locators {
			f(image, node, has)
		}
	}
	for node := range was {
		if r := i.reports[image][node]; r == nil || !r.counts(now, image) {
			delete(was, node)
			notify(node, false)
		}
	}
	for node, r := range i.reports[image] {
		if was[node] || !r.counts(now, image) {
			continue
		}
		if was == nil {
			was = map[string]bool{}
			i.located[image] = was
		}
		was[node] = true
		notify(node, true)
	}
	if len(was) == 0 {
		delete(i.located, image)
	}
}

func (i *Images) publish(image string, known []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if slices.Equal(known, i.known[image]) {
		return
	}
	if i.known[image] = known; len(known) == 0 {
		delete(i.known, image)
	}
	for _, f := range i.subscribers {
		f(image, known)
	}
}

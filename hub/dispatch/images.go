package dispatch

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/wire"
)

const (
	// A word outlives the last pod that it came of by this much: long enough for the pod's successors to be placed by it,
	// short enough for a tag that has been pushed anew to get another try.
	imageLinger = 10 * time.Minute
	// Bounds of what one node may say.
	maxImages    = 256
	maxImageName = 512
	maxPlatforms = 64
	maxPlatform  = 32 // characters
)

// images is what nodes tell of the architectures that images exist for. It is the loop's alone; listeners are called from
// there. Nothing of it is stored: nodes say it again to a hub that has forgotten.
//
// One node's word counts for the others, so the rule is:
//
//   - only while a pod with this image is bound to the node, and for imageLinger after (of a digest for ever, since what it
//     names cannot change): a node cannot speak of what nobody has asked it for;
//   - only what the registry has told makes an image known. A copy that was imported proves that its own architecture
//     exists, not that others do not;
//   - an architecture exists when any node says so: a good word beats a bad one. So nobody can talk an image away that
//     another node has pulled. A node's newest word replaces its older ones.
type images struct {
	words map[string]map[string]*word // by image, by node
	count map[string]int              // of words, by node

	mu        sync.Mutex
	answers   map[string][]string // what listeners have been told
	listeners map[int]func(image string, architectures []string)
	next      int
}

// word is what one node has said of one image.
type word struct {
	platforms []string
	local     bool
	said      bool      // and not taken back
	used      bool      // a pod with the image is bound to the node
	until     time.Time // counts until then all the same
}

func (w *word) stands() bool { return w.said && w.used }

func newImages() *images {
	return &images{words: map[string]map[string]*word{}, count: map[string]int{}, answers: map[string][]string{},
		listeners: map[int]func(string, []string){}}
}

// Subscribe tells saw for which architectures images are known to exist: all that is known, and then each change, one call
// at a time, until ctx ends. None: nothing is known any more.
func (d *Dispatch) Subscribe(ctx context.Context, saw func(image string, architectures []string)) {
	i := d.images
	i.mu.Lock()
	defer i.mu.Unlock()
	id := i.next
	i.next++
	i.listeners[id] = saw
	for image, a := range i.answers {
		saw(image, a)
	}
	context.AfterFunc(ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.listeners, id)
	})
}

// imageReports takes what a batch says of images. They are not written anywhere, so they do not pass the intake.
func (d *Dispatch) imageReports(now time.Time, n *node, b *wire.Batch) {
	for _, id := range b.Deletes {
		if id.Kind == wire.KindImage {
			d.images.unsay(now, n.name, id.UID)
		}
	}
	for _, p := range b.Puts {
		if p.Kind == wire.KindImage {
			d.images.say(now, n.name, p.UID, p.Data, d.set.usesImage(n.name, p.UID))
		}
	}
	d.wakeAt(d.images.expire(now))
}

// imagesInUse follows which images are used where, after a pod has come, gone or changed.
func (d *Dispatch) imagesInUse(now time.Time, old, new *corev1.Pod) {
	before, after := imagesOf(old), imagesOf(new)
	if old != nil && new != nil && old.Spec.NodeName == new.Spec.NodeName && slices.Equal(before, after) {
		return
	}
	for _, image := range before {
		if node := old.Spec.NodeName; d.images.words[image][node] != nil {
			d.images.use(now, node, image, d.set.usesImage(node, image))
			d.wakeAt(now.Add(imageLinger))
		}
	}
	for _, image := range after {
		d.images.use(now, new.Spec.NodeName, image, true)
	}
}

func (s *desired) usesImage(node, image string) bool {
	for _, p := range s.pods[node] {
		if slices.Contains(imagesOf(p), image) {
			return true
		}
	}
	return false
}

func imagesOf(p *corev1.Pod) (names []string) {
	if p == nil {
		return nil
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			names = append(names, c.Image)
		}
	}
	return names
}

// say takes what a node says of an image; used tells whether a pod with that image is bound to it. What makes no sense is
// left out, without a word: the node may be of a later version.
func (i *images) say(now time.Time, node, image string, data []byte, used bool) {
	var rep wire.ImageReport
	if len(image) > maxImageName || json.Unmarshal(data, &rep) != nil || len(rep.Platforms) == 0 || len(rep.Platforms) > maxPlatforms ||
		slices.ContainsFunc(rep.Platforms, func(p string) bool { return p == "" || len(p) > maxPlatform }) {
		i.unsay(now, node, image)
		return
	}
	w := i.words[image][node]
	if w == nil {
		if i.count[node] >= maxImages && !i.makeRoom(now, node) {
			return
		}
		if i.words[image] == nil {
			i.words[image] = map[string]*word{}
		}
		w = &word{}
		i.words[image][node] = w
		i.count[node]++
	}
	w.platforms, w.local, w.said, w.used = rep.Platforms, rep.Local, true, used
	i.answer(now, image)
}

// unsay: the node does not say it any more; it has no pod with the image, or has just started.
func (i *images) unsay(now time.Time, node, image string) {
	if w := i.words[image][node]; w != nil {
		i.turn(now, image, w, false, w.used)
	}
}

// use tells whether a pod with the image is bound to the node.
func (i *images) use(now time.Time, node, image string, used bool) {
	if w := i.words[image][node]; w != nil && w.used != used {
		i.turn(now, image, w, w.said, used)
	}
}

func (i *images) turn(now time.Time, image string, w *word, said, used bool) {
	stood := w.stands()
	w.said, w.used = said, used
	if stood && !w.stands() {
		w.until = now.Add(imageLinger)
	}
	i.answer(now, image)
}

// forget: the node is gone, and with it all that it has said.
func (i *images) forget(now time.Time, node string) {
	if i.count[node] == 0 {
		return
	}
	for image, by := range i.words {
		if by[node] != nil {
			delete(by, node)
			i.answer(now, image)
		}
	}
	delete(i.count, node)
}

// expire ends the words whose time has come, and tells when the next one's does.
func (i *images) expire(now time.Time) (next time.Time) {
	for image, by := range i.words {
		due := false
		for _, w := range by {
			if w.stands() || w.until.IsZero() || byDigest(image) {
				continue
			}
			if now.Before(w.until) {
				if next.IsZero() || w.until.Before(next) {
					next = w.until
				}
				continue
			}
			due, w.until = true, time.Time{}
		}
		if due {
			i.answer(now, image)
		}
	}
	return next
}

// makeRoom drops the node's word that has been out of use for longest, if there is one.
func (i *images) makeRoom(now time.Time, node string) bool {
	var oldest *word
	var from string
	for image, by := range i.words {
		if w := by[node]; w != nil && !w.stands() && (oldest == nil || w.until.Before(oldest.until)) {
			oldest, from = w, image
		}
	}
	if oldest == nil {
		return false
	}
	delete(i.words[from], node)
	i.count[node]--
	i.answer(now, from)
	return true
}

// counts tells whether the word is believed now.
func (w *word) counts(now time.Time, image string) bool {
	return w.stands() || !w.until.IsZero() && (now.Before(w.until) || byDigest(image))
}

func byDigest(image string) bool { return strings.Contains(image, "@sha256:") }

// answer works out what is known of an image, drops the words that are over, and tells the listeners when it is news.
func (i *images) answer(now time.Time, image string) {
	var known []string
	registry := false
	for node, w := range i.words[image] {
		if !w.said && !w.counts(now, image) {
			delete(i.words[image], node)
			if i.count[node]--; i.count[node] == 0 {
				delete(i.count, node)
			}
		}
		if w.counts(now, image) {
			registry = registry || !w.local
			known = append(known, w.platforms...)
		}
	}
	if len(i.words[image]) == 0 {
		delete(i.words, image)
	}
	if !registry {
		known = nil
	}
	slices.Sort(known)
	known = slices.Compact(known)
	i.mu.Lock()
	defer i.mu.Unlock()
	if slices.Equal(known, i.answers[image]) {
		return
	}
	if i.answers[image] = known; len(known) == 0 {
		delete(i.answers, image)
	}
	for _, saw := range i.listeners {
		saw(image, known)
	}
}

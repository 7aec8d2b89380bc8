// Package pulls follows how far nodes are with the images of pods that start. Nodes do not report it: a few of them are asked, and only while
// pods wait.
package pulls

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/internal/cli/podphase"
	"petrel.dev/petrel/internal/cli/progress"
	"petrel.dev/petrel/internal/kube"
)

const (
	// every is the least time between two rounds of questions.
	every = time.Second
	// idle is how long a node is left alone that pulls nothing for the pods: they start, or wait for something else.
	idle = 5 * time.Second
	// away is how long a node is left alone that did not answer: it is dark, or its agent is too old.
	away = 30 * time.Second
	// patience is how long a node may take to answer.
	patience = 3 * time.Second
	// most is how many nodes are asked at a time, and how many lines there are.
	most = 4
	// largest is the size of an image that is believed, in bytes; a bar can be computed of it without overflow.
	largest = 1 << 50
)

// Ask asks a node what it pulls.
type Ask func(ctx context.Context, node string) ([]kube.ImagePull, error)

// Follow shows how far images are, in a goroutine of its own, until ctx ends or the user may not ask nodes. What it returns takes the state of
// all pods, each time that it changes; it is for one goroutine.
func Follow(ctx context.Context, ask Ask, show func([]progress.Part)) func([]*corev1.Pod) {
	latest := make(chan []*corev1.Pod, 1)
	go follow(ctx, ask, latest, show)
	return func(pods []*corev1.Pod) {
		select {
		case <-latest: // too old by now
		default:
		}
		latest <- pods // there is room: nothing else sends
	}
}

func follow(ctx context.Context, ask Ask, pods <-chan []*corev1.Pod, show func([]progress.Part)) {
	f := follower{ask: ask, nodes: map[string]*node{}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case list := <-pods:
			f.set(list)
		case <-timer.C:
		}
		if !f.round(ctx) {
			show(nil)
			return
		}
		show(f.parts())
		timer.Stop()
		if next := f.next(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// follower is the state of Follow.
type follower struct {
	ask   Ask
	nodes map[string]*node // with pods that wait for an image, as far as is known
	after time.Time        // no round begins before
}

// node is one whose pods may wait for an image.
type node struct {
	name   string
	waits  time.Time       // since when the oldest of them does
	images map[string]bool // of each pod: namespace/name image
	due    time.Time       // when it may be asked again
	pulls  []kube.ImagePull
}

// set takes the pods as they are now. What is known of nodes that still have pods waiting stays.
func (f *follower) set(pods []*corev1.Pod) {
	old := f.nodes
	f.nodes = map[string]*node{}
	for _, p := range pods {
		if !podphase.MayPull(p) {
			continue
		}
		n := f.nodes[p.Spec.NodeName]
		if n == nil {
			n = &node{name: p.Spec.NodeName, waits: p.CreationTimestamp.Time, images: map[string]bool{}}
			if before := old[n.name]; before != nil {
				n.due, n.pulls = before.due, before.pulls
			}
			f.nodes[n.name] = n
		}
		if p.CreationTimestamp.Time.Before(n.waits) {
			n.waits = p.CreationTimestamp.Time
		}
		for _, image := range kube.PodImages(p) {
			n.images[key(p.Namespace+"/"+p.Name, image)] = true
		}
	}
}

func key(pod, image string) string { return pod + " " + image }

// slowest returns the nodes that fit are true of, those first whose pods have waited for the longest.
func (f *follower) slowest(fit func(*node) bool) (out []*node) {
	for _, n := range f.nodes {
		if fit(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Or(a.waits.Compare(b.waits), cmp.Compare(a.name, b.name)) })
	return out[:min(len(out), most)]
}

// answer is a node's.
type answer struct {
	node  *node
	pulls []kube.ImagePull
	err   error
}

// round asks the nodes that are due, if it is time. It reports whether the user may ask.
func (f *follower) round(ctx context.Context) (allowed bool) {
	now := time.Now()
	if now.Before(f.after) {
		return true
	}
	due := f.slowest(func(n *node) bool { return !n.due.After(now) })
	if len(due) > 0 {
		f.after = now.Add(every)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := make(chan answer, len(due))
	for _, n := range due {
		go f.question(ctx, n, answers)
	}
	allowed = true
	for range due {
		a := <-answers
		a.node.pulls, a.node.due = a.node.wanted(a.pulls), now.Add(every)
		switch {
		case a.err != nil:
			a.node.due = time.Now().Add(away)
			allowed = allowed && !apierrors.IsForbidden(a.err)
		case len(a.node.pulls) == 0:
			a.node.due = now.Add(idle)
		}
	}
	return allowed
}

func (f *follower) question(ctx context.Context, n *node, answers chan<- answer) {
	list, err := f.ask(ctx, n.name)
	answers <- answer{n, list, err}
}

// wanted returns those of a node's pulls that pods of interest wait for. Only names that the pods have themselves get to the terminal.
func (n *node) wanted(all []kube.ImagePull) (out []kube.ImagePull) {
	for _, p := range all {
		if slices.ContainsFunc(p.Pods, func(pod string) bool { return n.images[key(pod, p.Image)] }) {
			p.TotalBytes = min(p.TotalBytes, largest)
			p.Bytes = min(max(p.Bytes, 0), max(p.TotalBytes, 0))
			out = append(out, p)
		}
	}
	return out
}

// next returns when the next round is to begin, zero while no pod waits.
func (f *follower) next() time.Time {
	if len(f.nodes) == 0 {
		return time.Time{}
	}
	first := slices.MinFunc(slices.Collect(maps.Values(f.nodes)), func(a, b *node) int { return a.due.Compare(b.due) })
	if first.due.Before(f.after) {
		return f.after
	}
	return first.due
}

// parts returns the lines to show.
func (f *follower) parts() (out []progress.Part) {
	for _, n := range f.slowest(func(n *node) bool { return len(n.pulls) > 0 }) {
		for _, p := range n.pulls {
			part := progress.Part{Title: n.name + " " + p.Image, Done: p.Bytes, Total: p.TotalBytes}
			switch {
			case p.TotalBytes <= 0:
				part.Note = "asking the registry"
			case p.Bytes >= p.TotalBytes:
				part.Note = "unpacking"
			}
			out = append(out, part)
		}
	}
	return out[:min(len(out), most)]
}

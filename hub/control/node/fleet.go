package node

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// fleet holds which nodes are dark, as the cache has them: while all are, the hub assumes that it is itself cut off. The feed's
// goroutine writes it and the worker reads it.
type fleet struct {
	mu   sync.Mutex
	dark map[string]bool // has every node in the cache; guarded by mu
	// brightAgain is when all nodes were last dark and one came back; zero: never. Guarded by mu.
	brightAgain time.Time
}

func newFleet() *fleet { return &fleet{dark: map[string]bool{}} }

// saw records a change of a Node. When the first node comes back or joins, it returns the dark ones, whose evictions may
// begin.
func (f *fleet) saw(ch control.Change) (waiting []string) {
	name := ch.Object().GetName()
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.allDarkLocked()
	if ch.New == nil {
		delete(f.dark, name)
	} else {
		f.dark[name] = control.NodeDark(ch.New.(*corev1.Node))
	}
	if before && !f.allDarkLocked() {
		f.brightAgain = time.Now()
		for n, dark := range f.dark {
			if dark {
				waiting = append(waiting, n)
			}
		}
	}
	return waiting
}

// alone reports whether all other nodes are dark, or there are none.
func (f *fleet) alone(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, dark := range f.dark {
		if !dark && n != node {
			return false
		}
	}
	return true
}

// brightSince returns when all nodes were last dark and one came back; zero: never.
func (f *fleet) brightSince() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.brightAgain
}

// allDarkLocked reports whether no node is known that is not dark. f.mu is held.
func (f *fleet) allDarkLocked() bool {
	for _, dark := range f.dark {
		if !dark {
			return false
		}
	}
	return true
}

// podsOn returns the pods that are bound to a node, whether there is such a Node or not.
func podsOn(r control.Reader, node string) []*corev1.Pod {
	return control.Index[*corev1.Pod](r, kube.Pod, control.NodeIndex, node)
}

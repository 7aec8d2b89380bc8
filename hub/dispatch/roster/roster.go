// Package roster knows which devices are nodes: those whose key a Node has.
package roster

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Roster holds which devices are known. One goroutine changes it, and any may call Has. The zero value is empty.
type Roster struct {
	names map[string]string // Node name by the device's fingerprint; of the goroutine that changes it

	mu  sync.RWMutex
	ids map[string]int // by device id: how many fingerprints name it, never 0; guarded by mu
}

// Name returns the name of the Node that has a device's fingerprint as its key. Only the goroutine that changes the Roster may call it.
func (r *Roster) Name(fingerprint string) (name string, ok bool) {
	name, ok = r.names[fingerprint]
	return name, ok
}

// All returns the Node's name by fingerprint, of all devices. Only the goroutine that changes the Roster may call it.
func (r *Roster) All() iter.Seq2[string, string] { return maps.All(r.names) }

// Change takes in the change of one Node. lost reports that the device that old named is not this Node's any more.
func (r *Roster) Change(old, new *corev1.Node) (device string, lost bool) {
	before, after := keyOf(old), keyOf(new)
	if key := before; key != "" && (new == nil || new.UID != old.UID || after != key) {
		if r.names[key] == old.Name {
			delete(r.names, key)
			r.remove(wire.NodeID(key))
		}
		device, lost = wire.NodeID(key), true
	}
	if key := after; key != "" {
		if _, ok := r.names[key]; !ok {
			r.add(wire.NodeID(key))
		}
		if r.names == nil {
			r.names = map[string]string{}
		}
		r.names[key] = new.Name
	}
	return device, lost
}

// keyOf returns the fingerprint of a Node's device; empty: it has none yet.
func keyOf(n *corev1.Node) string {
	if n == nil {
		return ""
	}
	return n.Annotations[kube.NodeKeyAnnotation]
}

func (r *Roster) add(device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]int{}
	}
	r.ids[device]++
}

func (r *Roster) remove(device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids[device]--; r.ids[device] <= 0 {
		delete(r.ids, device)
	}
}

// Has reports whether a device is known. Any goroutine may call it.
func (r *Roster) Has(device string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ids[device] > 0
}

// maxAddress bounds an address that a node reports, in bytes, where people read it.
const maxAddress = 64

// Describe returns what is known of the machine that has a node's name, so that a person finds it among others on a shelf: the
// device's id, what its agent has reported of it, and whether it is there now. n may be nil.
func Describe(device string, n *corev1.Node, connected bool) string {
	parts := []string{device}
	if n != nil {
		if b := n.Labels[kube.BoardLabel]; b != "" {
			parts = append(parts, b)
		}
		if s := n.Labels[kube.SerialLabel]; s != "" {
			parts = append(parts, "serial number "+s)
		}
		i := slices.IndexFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
		if i >= 0 {
			a := n.Status.Addresses[i].Address
			parts = append(parts, "at "+a[:min(len(a), maxAddress)])
		}
	}
	if connected {
		return strings.Join(append(parts, "connected now"), ", ")
	}
	return strings.Join(append(parts, "not connected now"), ", ")
}

// Absent is the error of what needs the connection of a node that has none: since when, and what works all the same. last is when the node
// was last seen; zero: not since the hub started, and then the node's condition has when an earlier start found it dark.
func Absent(n *corev1.Node, last, now time.Time) error {
	since := "it has not been heard of since this hub started"
	if dark := kube.FindCondition(n.Status.Conditions, kube.DarkCondition); !last.IsZero() {
		since = fmt.Sprintf("it was last heard of at %s, %s ago", last.UTC().Format(time.RFC3339), duration.HumanDuration(now.Sub(last)))
	} else if dark != nil && dark.Status == corev1.ConditionTrue {
		since = "it was last heard of before " + dark.LastTransitionTime.UTC().Format(time.RFC3339)
	}
	return apierrors.NewServiceUnavailable(fmt.Sprintf("node %s is not connected: %s. Its pods go on running there, and changes reach it when it is back; "+
		"logs, exec, attach, port-forward and metrics work again then", n.Name, since))
}

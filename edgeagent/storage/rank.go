package storage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/internal/kube"
)

// Image is one image of the node, as far as collecting it needs.
type Image struct {
	Name      string
	Pinned    bool      // imported by hand
	InUse     bool      // by a container, or by a pod that belongs here
	LastUsed  time.Time // zero: not since the agent started
	CreatedAt time.Time // on this node
}

// MinAge is how long an image must have been here, and unused, before it is collected: its pod may be on its way.
const MinAge = 2 * time.Minute

// Collectable returns the images that may go, the one that was used longest ago first.
func Collectable(list []Image, now time.Time, minAge time.Duration) []Image {
	var out []Image
	for _, i := range list {
		// A time that lies ahead was noted before the clock was set back: nobody knows its age.
		age := now.Sub(i.last())
		if !i.Pinned && !i.InUse && (age >= minAge || age < 0) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(a.last().Compare(b.last()), strings.Compare(a.Name, b.Name))
	})
	return out
}

func (i Image) last() time.Time {
	if i.LastUsed.After(i.CreatedAt) {
		return i.LastUsed
	}
	return i.CreatedAt
}

// Candidate is a pod that may be evicted for its use of the disk.
type Candidate struct {
	Pod   *corev1.Pod
	Usage PodUsage
}

const (
	// leastGain is what the eviction of a pod must free, in bytes: to evict others empties the node and not its disk.
	leastGain = 1 << 20
	// systemCritical is the least priority of pods that the node itself needs.
	systemCritical = 2_000_000_000
)

// request is what a pod has asked for on the disk, in bytes: the same as the scheduler has reserved for it.
func request(pod *corev1.Pod) int64 {
	requests := kube.PodRequests(pod)
	return requests.StorageEphemeral().Value()
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// Critical reports whether a pod is one that the node itself needs: it is neither evicted nor refused.
func Critical(pod *corev1.Pod) bool { return priority(pod) >= systemCritical }

// Rank returns the pods that may be evicted, the first to go first: those that use more than they requested, then the less
// important, then those that use the most over their request.
func Rank(list []Candidate) []Candidate {
	out := slices.DeleteFunc(slices.Clone(list), func(c Candidate) bool {
		return Critical(c.Pod) || c.Usage.Total() < leastGain
	})
	over := func(c Candidate) int64 { return c.Usage.Total() - request(c.Pod) }
	slices.SortStableFunc(out, func(a, b Candidate) int {
		if x, y := over(a) > 0, over(b) > 0; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(priority(a.Pod), priority(b.Pod)), cmp.Compare(over(b), over(a)))
	})
	return out
}

// LowMessage is why a pod is evicted from a node whose disk is short, in kubelet's words.
func LowMessage(c Candidate, floor, free int64) string {
	text := func(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: ephemeral-storage. Threshold quantity: %s, available: %s. ", text(floor), text(free))
	for i := range c.Pod.Spec.Containers {
		k := &c.Pod.Spec.Containers[i]
		if used, req := c.Usage.Containers[k.Name], k.Resources.Requests.StorageEphemeral(); used > req.Value() {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of ephemeral-storage. ", k.Name, text(used), req.String())
		}
	}
	return b.String()
}

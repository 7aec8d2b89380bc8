package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	fleet "petrel.dev/petrel/hub/control/rollout"
)

// Annotations of Kubernetes' deployment controller, which kubectl reads.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history" // earlier revisions of a ReplicaSet that came back
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas" // the Deployment's replicas when this one was last scaled
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"     // and that plus the surge
)

// state is all that a decision depends on.
type state struct {
	d   *appsv1.Deployment
	rss []*appsv1.ReplicaSet // those that belong to d
	// dark counts, by ReplicaSet, the active pods on dark nodes.
	dark map[types.UID]int64
	// oldPods reports, for Recreate, whether a ReplicaSet has pods on nodes that are not dark which have not ended, terminating
	// ones included.
	oldPods map[types.UID]bool
	staged  *staged // nil when the rollout is not staged
	// fetching is whether nodes of old pods fetch the images of the current template.
	fetching bool
	now      time.Time
}

// rollout is a state in order, and the sizes that are being decided. It lives for one decision, in one goroutine.
type rollout struct {
	state
	want    int64                // the Deployment's replicas
	current *appsv1.ReplicaSet   // of the current template; nil when there is none yet
	old     []*appsv1.ReplicaSet // all others, oldest first
	size    map[types.UID]int64  // spec.replicas as it is to be
	// deferred is how many of a ReplicaSet's pods are left alone on dark nodes: they count as replicas, and take no part in
	// the rollout until their node is back.
	deferred map[types.UID]int64
	touched  map[types.UID]bool // sizes or annotations that must be written even when equal
	// stages is how far a staged rollout may go, nil when it is not staged; limit is how large the current ReplicaSet may grow by it.
	stages *fleet.Decision
	limit  int64
}

// newRollout returns the rollout of a state: its ReplicaSets in order, with the sizes that they have. Of several with the current
// template the oldest is the current one, as in Kubernetes.
func newRollout(st state) *rollout {
	r := &rollout{state: st, want: replicas(st.d.Spec.Replicas),
		size: map[types.UID]int64{}, deferred: map[types.UID]int64{}, touched: map[types.UID]bool{}}
	all := slices.Clone(st.rss)
	slices.SortFunc(all, olderFirst)
	for _, rs := range all {
		r.size[rs.UID] = replicas(rs.Spec.Replicas)
		if r.current == nil && sameTemplate(&rs.Spec.Template, &st.d.Spec.Template) {
			r.current = rs
			continue
		}
		r.old = append(r.old, rs)
	}
	r.deferPods()
	return r
}

// deferPods sets deferred for old pods on dark nodes: in total at most as many replicas as the current ReplicaSet does not have
// already, those of the newest of the old ReplicaSets first.
func (r *rollout) deferPods() {
	places := r.want - r.sizeOf(r.current)
	for _, rs := range slices.Backward(r.old) {
		n := max(0, min(r.dark[rs.UID], r.size[rs.UID], places))
		r.deferred[rs.UID] = n
		places -= n
	}
}

// sizeOf returns the size that a ReplicaSet is to have; 0 for nil.
func (r *rollout) sizeOf(rs *appsv1.ReplicaSet) int64 {
	if rs == nil {
		return 0
	}
	return r.size[rs.UID]
}

// live returns how many of a ReplicaSet's pods take part in the rollout.
func (r *rollout) live(rs *appsv1.ReplicaSet) int64 { return r.sizeOf(rs) - r.deferredOf(rs) }

// deferredOf returns how many of a ReplicaSet's pods are deferred; 0 for nil.
func (r *rollout) deferredOf(rs *appsv1.ReplicaSet) int64 {
	if rs == nil {
		return 0
	}
	return r.deferred[rs.UID]
}

// oldLive returns how many pods of old ReplicaSets take part in the rollout.
func (r *rollout) oldLive() (n int64) {
	for _, rs := range r.old {
		n += r.live(rs)
	}
	return n
}

func (r *rollout) allDeferred() (n int64) {
	for _, d := range r.deferred {
		n += d
	}
	return n
}

// goal returns the size that the current ReplicaSet may grow to now.
func (r *rollout) goal() int64 { return r.want - r.allDeferred() }

// available returns how many of an old ReplicaSet's live pods serve.
func (r *rollout) available(rs *appsv1.ReplicaSet) int64 {
	return min(int64(rs.Status.AvailableReplicas), r.live(rs))
}

// settled returns how many pods of the current ReplicaSet the rollout does not wait for: those that serve, and those on dark
// nodes.
func (r *rollout) settled() int64 {
	if r.current == nil {
		return 0
	}
	return min(r.sizeOf(r.current), int64(r.current.Status.AvailableReplicas)+r.dark[r.current.UID])
}

// all returns the ReplicaSets, the current one last.
func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.current == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.current)
}

// active returns those that have, or are to have, pods.
func (r *rollout) active() []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(r.all()), func(rs *appsv1.ReplicaSet) bool { return r.size[rs.UID] == 0 })
}

// olderFirst orders ReplicaSets by age, and equally old ones by name: creation times have whole seconds.
func olderFirst(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// sameTemplate compares pod templates without the label that distinguishes the ReplicaSets of one Deployment.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, ok := t.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; !ok {
		return t
	}
	t = t.DeepCopy()
	delete(t.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return t
}

// replicas returns an API field in 64 bits, nil as 1: sums of such fields do not fit into 32.
func replicas(n *int32) int64 {
	if n == nil {
		return 1
	}
	return int64(*n)
}

// field returns n as an API field holds it: not negative, at most the largest int32.
func field(n int64) int32 { return int32(min(max(n, 0), math.MaxInt32)) }

// surge returns how many pods more than wanted a rollout may have. Percentages round up.
func surge(d *appsv1.Deployment) int64 {
	s, _ := bounds(d)
	return s
}

// bounds resolves maxSurge (rounding up) and maxUnavailable (rounding down). When both are 0 no
// step would be possible, so one may be unavailable.
func bounds(d *appsv1.Deployment) (surge, unavailable int64) {
	ru := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || ru == nil {
		if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
			return 0, 0
		}
		return 0, 1
	}
	n := replicas(d.Spec.Replicas)
	surge = scaled(ru.MaxSurge, n, true)
	unavailable = scaled(ru.MaxUnavailable, n, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, n)
}

func scaled(v *intstr.IntOrString, total int64, up bool) int64 {
	if v == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, int(total), up)
	if err != nil {
		return 0 // validation refuses it
	}
	return int64(n)
}

// number reads an annotation that holds a count.
func number(rs *appsv1.ReplicaSet, annotation string) (int64, bool) {
	n, err := strconv.ParseInt(rs.Annotations[annotation], 10, 64)
	return n, err == nil && n >= 0 && n <= 2*math.MaxInt32
}

// revision returns a ReplicaSet's revision; 0 when it has none that can be read.
func revision(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	return n
}

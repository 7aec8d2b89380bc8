package deployment

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"petrel.dev/petrel/hub/control/replicaset"
	fleet "petrel.dev/petrel/hub/control/rollout"
	"petrel.dev/petrel/internal/kube"
)

// actions are what one reconcile will write.
type actions struct {
	create   *appsv1.ReplicaSet   // the current ReplicaSet, when there is none and there may be one
	update   []change             // ReplicaSets to scale or annotate
	remove   []*appsv1.ReplicaSet // empty ones beyond the history limit
	revision string               // for the Deployment's annotation; "" leaves it
	status   appsv1.DeploymentStatus
	events   []string // ScalingReplicaSet
	// stage is the state of a staged rollout for the Deployment's annotation, "" leaves it; template is what it goes back to, or nil.
	stage       string
	template    *corev1.PodTemplateSpec
	stageEvents []fleet.Event
	after       time.Duration // until the progress deadline; 0: none is running
}

// change is an update of a ReplicaSet: old is shared and the revision that it depends on, new is a copy.
type change struct{ old, new *appsv1.ReplicaSet }

// decide takes one step from what is towards what the Deployment wants.
func decide(st state) actions {
	r := newRollout(st)
	var p actions
	if r.d.DeletionTimestamp != nil {
		p.status = r.status()
		return p
	}
	if r.limit = r.want; !r.d.Spec.Paused {
		r.stage()
	}
	rolling := false
	mayCreate := !r.d.Spec.Paused
	switch {
	case r.d.Spec.Paused || r.resized(): // a new size first: the rollout goes on from the sizes that result
		mayCreate = false
		r.resize()
	case r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		mayCreate = r.recreate()
		rolling = true
	case r.current != nil:
		r.roll()
		rolling = true
	default:
		rolling = true
	}
	if r.current == nil && mayCreate {
		p.create = r.newReplicaSet()
	}
	for _, rs := range r.all() {
		if c := r.written(rs); c != nil {
			p.update = append(p.update, change{rs, c})
			if from, to := replicas(rs.Spec.Replicas), r.size[rs.UID]; from != to {
				p.events = append(p.events, scaledText(rs.Name, from, to))
			}
		}
	}
	if r.current != nil {
		p.revision = strconv.FormatInt(max(r.nextRevision(), revision(r.current)), 10)
	}
	p.status = r.status()
	if rolling {
		p.after = r.progress(&p.status)
	}
	r.finishStage(&p)
	if r.d.Spec.Paused || complete(r.d, &p.status) {
		p.remove = r.history()
	}
	return p
}

// scaledText returns the text of the event, in Kubernetes' words.
func scaledText(name string, from, to int64) string {
	way := "up"
	if to < from {
		way = "down"
	}
	return fmt.Sprintf("Scaled %s replica set %s from %d to %d", way, name, from, to)
}

// written returns rs as it should be, or nil when it is so already.
func (r *rollout) written(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet {
	n := rs.DeepCopy()
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	size := r.size[rs.UID]
	if size != replicas(rs.Spec.Replicas) || r.touched[rs.UID] {
		n.Spec.Replicas = new(field(size))
		r.annotateSize(n)
	}
	if rs == r.current {
		r.annotate(n)
		n.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
	}
	if equality.Semantic.DeepEqual(rs, n) {
		return nil
	}
	return n
}

// annotateSize records from which replicas and surge the size was computed, and how many pods are deferred.
func (r *rollout) annotateSize(rs *appsv1.ReplicaSet) {
	rs.Annotations[desiredAnnotation] = strconv.FormatInt(r.want, 10)
	rs.Annotations[maxAnnotation] = strconv.FormatInt(r.want+surge(r.d), 10)
	if n := r.deferred[rs.UID]; n > 0 {
		rs.Annotations[replicaset.DeferredAnnotation] = strconv.FormatInt(n, 10)
	} else {
		delete(rs.Annotations, replicaset.DeferredAnnotation)
	}
}

// notCopied are annotations that belong to the Deployment alone, or to each ReplicaSet by itself.
var notCopied = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true,
	revisionAnnotation:                 true,
	historyAnnotation:                  true,
	desiredAnnotation:                  true,
	maxAnnotation:                      true,
	appsv1.DeprecatedRollbackTo:        true,
	replicaset.DeferredAnnotation:      true,
}

// annotate gives the current ReplicaSet the Deployment's annotations and, if it is not the newest already, the next
// revision; one that comes back (a rollback) keeps its earlier ones in an annotation.
func (r *rollout) annotate(rs *appsv1.ReplicaSet) {
	for k, v := range r.d.Annotations {
		if !notCopied[k] && !strings.HasPrefix(k, kube.RolloutPrefix) {
			rs.Annotations[k] = v
		}
	}
	next, had := r.nextRevision(), revision(rs)
	if had >= next {
		return
	}
	rs.Annotations[revisionAnnotation] = strconv.FormatInt(next, 10)
	if had == 0 {
		return
	}
	var past []string
	if h := rs.Annotations[historyAnnotation]; h != "" {
		past = strings.Split(h, ",")
	}
	past = append(past, strconv.FormatInt(had, 10))
	const longest = 2000 // characters
	for len(strings.Join(past, ",")) > longest {
		past = past[1:]
	}
	rs.Annotations[historyAnnotation] = strings.Join(past, ",")
}

// nextRevision returns one more than the largest of the old ReplicaSets.
func (r *rollout) nextRevision() int64 {
	n := int64(0)
	for _, rs := range r.old {
		n = max(n, revision(rs))
	}
	return n + 1
}

// newReplicaSet returns the ReplicaSet for the current template, as large as it may be at once. Its name follows from the
// template, so that a repeated creation is refused.
func (r *rollout) newReplicaSet() *appsv1.ReplicaSet {
	d := r.d
	hash := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	template := *d.Spec.Template.DeepCopy()
	template.Labels = maps.Clone(template.Labels)
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash

	size := r.goal()
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		size = max(0, min(size, r.limit, size+surge(d)-r.oldLive()))
	}
	rs := &appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       d.Namespace,
			Name:            d.Name[:min(len(d.Name), 253-1-len(hash))] + "-" + hash,
			Labels:          maps.Clone(template.Labels),
			Annotations:     map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kube.Deployment)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(field(size)), MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	r.annotateSize(rs)
	r.annotate(rs)
	return rs
}

// templateHash returns a hash that is short and safe in names and labels. When two templates share one, the count of collisions
// in the Deployment's status distinguishes them.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	b, err := json.Marshal(t)
	if err != nil {
		panic("deployment: a pod template that came as JSON does not go back: " + err.Error())
	}
	_, _ = h.Write(b)
	if collisions != nil {
		_ = binary.Write(h, binary.LittleEndian, *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// history returns the empty old ReplicaSets beyond the Deployment's limit, the earliest revisions.
func (r *rollout) history() []*appsv1.ReplicaSet {
	limit := r.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit < 0 {
		return nil
	}
	kept := slices.DeleteFunc(slices.Clone(r.old), func(rs *appsv1.ReplicaSet) bool { return rs.DeletionTimestamp != nil })
	slices.SortStableFunc(kept, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	var out []*appsv1.ReplicaSet
	for _, rs := range kept[:max(0, len(kept)-int(*limit))] {
		if rs.Status.Replicas == 0 && replicas(rs.Spec.Replicas) == 0 && r.size[rs.UID] == 0 && rs.Status.ObservedGeneration >= rs.Generation {
			out = append(out, rs)
		}
	}
	return out
}

package statefulset

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
)

// version is a pod template with the name of its revision.
type version struct {
	name     string
	template *corev1.PodTemplateSpec
}

// state is what is: one StatefulSet and its pods. Its objects are shared: read-only.
type state struct {
	set             *appsv1.StatefulSet
	current, update version // equal when no update is under way
	// claim returns the claim of that name, nil when there is none.
	claim func(name string) *corev1.PersistentVolumeClaim
	// held returns how long a failed pod of that name still waits for its deletion; 0: no longer.
	held func(pod string) time.Duration
	// replaceable reports whether a node has the images of the update, or does without. dark reports whether it is out of reach.
	replaceable, dark func(node string) bool
	now               time.Time

	all       []*corev1.Pod // with a name of the set, in whatever state
	replicas  []*corev1.Pod // by ordinal, from the first one wanted; nil: absent
	condemned []*corev1.Pod // beyond the ordinals that are wanted, the last one first

	after time.Duration // until something depends on time; 0: nothing does
}

// again asks for another reconcile after d at the latest.
func (st *state) again(d time.Duration) {
	if d > 0 && (st.after == 0 || d < st.after) {
		st.after = d
	}
}

// ordinal returns the number of a pod by its name, and whether the name is one of the set's.
func ordinal(s *appsv1.StatefulSet, pod string) (int, bool) {
	digits, ok := strings.CutPrefix(pod, s.Name+"-")
	n, err := strconv.ParseInt(digits, 10, 32)
	if !ok || err != nil || strconv.FormatInt(n, 10) != digits || n < 0 {
		return 0, false
	}
	return int(n), true
}

func podName(s *appsv1.StatefulSet, ordinal int) string { return s.Name + "-" + strconv.Itoa(ordinal) }

// first returns the smallest ordinal.
func first(s *appsv1.StatefulSet) int {
	if s.Spec.Ordinals != nil {
		return int(s.Spec.Ordinals.Start)
	}
	return 0
}

// wanted returns how many pods there should be.
func wanted(s *appsv1.StatefulSet) int {
	if s.Spec.Replicas == nil {
		return 1
	}
	return int(*s.Spec.Replicas)
}

// inRange reports whether a pod of that ordinal is wanted.
func inRange(s *appsv1.StatefulSet, ordinal int) bool {
	return ordinal >= first(s) && ordinal < first(s)+wanted(s)
}

// maxReplicas bounds the table of ordinals. A larger set grows towards it, as far as its cluster goes.
const maxReplicas = 100_000

// place sorts the pods by what becomes of them.
func (st *state) place(mine podset.Claimed) {
	st.replicas = make([]*corev1.Pod, min(wanted(st.set), maxReplicas))
	for _, list := range [][]*corev1.Pod{mine.Active, mine.Ending, mine.Ended} {
		for _, p := range list {
			n, ok := ordinal(st.set, p.Name)
			if !ok {
				continue
			}
			st.all = append(st.all, p)
			if i := n - first(st.set); i >= 0 && i < len(st.replicas) {
				st.replicas[i] = p
			} else {
				st.condemned = append(st.condemned, p)
			}
		}
	}
	slices.SortFunc(st.condemned, func(a, b *corev1.Pod) int {
		x, _ := ordinal(st.set, a.Name)
		y, _ := ordinal(st.set, b.Name)
		return cmp.Compare(y, x)
	})
}

// healthy reports whether the pod runs and is ready.
func healthy(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && control.PodReady(p)
}

// available reports whether the pod is available, and asks for another reconcile when it will be.
func (st *state) available(p *corev1.Pod) bool {
	ok, wait := control.PodAvailable(p, st.set.Spec.MinReadySeconds, st.now)
	st.again(wait)
	return ok
}

// serves reports whether the pod is there, available and not ending.
func (st *state) serves(p *corev1.Pod) bool {
	return p != nil && p.DeletionTimestamp == nil && st.available(p)
}

// parallel reports whether pods are made and deleted without waiting for each other.
func (st *state) parallel() bool {
	return st.set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
}

// partition returns the index below which pods stay at the current revision.
func (st *state) partition() int {
	u := st.set.Spec.UpdateStrategy
	if u.Type != appsv1.RollingUpdateStatefulSetStrategyType || u.RollingUpdate == nil || u.RollingUpdate.Partition == nil {
		return 0
	}
	return int(*u.RollingUpdate.Partition)
}

// maxUnavailable returns how many pods an update may take away at a time. exact reports whether the set names it: then pods that do not
// serve count wherever they are. Otherwise it is one, and only those after the next one hold the update, as ever.
func (st *state) maxUnavailable() (n int, exact bool) {
	u := st.set.Spec.UpdateStrategy.RollingUpdate
	if u == nil || u.MaxUnavailable == nil {
		return 1, false
	}
	n, _ = intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, wanted(st.set), false) // validated: it parses
	return max(1, n), true
}

// status returns the StatefulSet's status from its pods.
func (st *state) status() appsv1.StatefulSetStatus {
	s := appsv1.StatefulSetStatus{
		ObservedGeneration: st.set.Generation, CurrentRevision: st.current.name, UpdateRevision: st.update.name,
		CollisionCount: st.set.Status.CollisionCount, Conditions: st.set.DeepCopy().Status.Conditions,
	}
	for _, p := range st.all {
		s.Replicas++
		if healthy(p) {
			s.ReadyReplicas++
			if st.available(p) {
				s.AvailableReplicas++
			}
		}
		if p.DeletionTimestamp != nil {
			continue
		}
		if r := p.Labels[appsv1.StatefulSetRevisionLabel]; r == st.current.name {
			s.CurrentReplicas++
		}
		if r := p.Labels[appsv1.StatefulSetRevisionLabel]; r == st.update.name {
			s.UpdatedReplicas++
		}
	}
	return s
}

// complete makes the update revision the current one when all pods are of it and ready.
func (st *state) complete(s *appsv1.StatefulSetStatus) {
	n := int32(wanted(st.set))
	if st.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType &&
		s.UpdatedReplicas == n && s.ReadyReplicas == n && s.Replicas == n {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
}

package daemonset

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/hub/control/rollout"
)

// state is what is: one DaemonSet, the nodes and its pods. Its objects are shared: read-only.
type state struct {
	ds    *appsv1.DaemonSet
	nodes []node // by name
	// pods are the DaemonSet's by the node that they are on or are meant for, without those that have ended and are being deleted. Bound
	// ones come first, then the oldest.
	pods map[string][]*corev1.Pod
	// stray are not bound, and meant for nodes that are gone: nothing else deletes them.
	stray []*corev1.Pod
	hash  string          // of the current revision
	same  map[string]bool // hashes of all revisions with the current template
	// held returns how long a failed pod on the node still waits for its deletion; 0: no longer.
	held func(node string) time.Duration
	now  time.Time
	// replaceable reports whether a node has the images of the current template, or does without.
	replaceable func(node string) bool
	// staged is how far the rollout may go by its annotations, nil when it is not staged; waves are those of the nodes then.
	staged *rollout.Decision
	waves  map[string]int

	after time.Duration // until something depends on time; 0: nothing does
}

// node is a node as the DaemonSet's pod sees it.
type node struct {
	name string
	bind bool // a pod belongs here
	stay bool // a pod that runs here goes on
	dark bool

	labels map[string]string // shared: read-only
}

// again asks for another reconcile after d at the latest.
func (st *state) again(d time.Duration) {
	if d > 0 && (st.after == 0 || d < st.after) {
		st.after = d
	}
}

// place sorts the pods by node.
func (st *state) place(mine podset.Claimed) {
	st.pods = make(map[string][]*corev1.Pod, len(st.nodes))
	known := make(map[string]bool, len(st.nodes))
	for _, n := range st.nodes {
		known[n.name] = true
	}
	for _, list := range [][]*corev1.Pod{mine.Active, mine.Ending, mine.Ended} {
		for _, p := range list {
			if control.PodFinished(p) && p.DeletionTimestamp != nil {
				continue // it waits for a finalizer only
			}
			name := target(p)
			switch {
			case known[name]:
				st.pods[name] = append(st.pods[name], p)
			case name != "" && p.Spec.NodeName == "" && p.DeletionTimestamp == nil:
				st.stray = append(st.stray, p)
			}
		}
	}
	for _, pods := range st.pods {
		slices.SortFunc(pods, func(a, b *corev1.Pod) int {
			return cmp.Or(cmp.Compare(unbound(a), unbound(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
	}
}

func unbound(p *corev1.Pod) int {
	if p.Spec.NodeName == "" {
		return 1
	}
	return 0
}

// target returns the node that the pod is on or is meant for, "" when it names none.
func target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// updated reports whether the pod is of the current template: by its revision or, for pods of very old controllers, by the number of
// the template.
func (st *state) updated(p *corev1.Pod) bool {
	if st.same[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] {
		return true
	}
	n, ok := generation(st.ds)
	return ok && p.Labels[generationLabel] == n
}

// generation returns the number of the DaemonSet's template, which the API counts in an annotation.
func generation(ds *appsv1.DaemonSet) (string, bool) {
	n, err := strconv.ParseInt(ds.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return strconv.FormatInt(n, 10), err == nil
}

// available reports whether the pod is available, and asks for another reconcile when it will be.
func (st *state) available(p *corev1.Pod) bool {
	ok, wait := control.PodAvailable(p, st.ds.Spec.MinReadySeconds, st.now)
	st.again(wait)
	return ok
}

// status returns the DaemonSet's status. The pod that counts on a node is the oldest one.
func (st *state) status() appsv1.DaemonSetStatus {
	s := *st.ds.Status.DeepCopy()
	s = appsv1.DaemonSetStatus{ObservedGeneration: st.ds.Generation, CollisionCount: s.CollisionCount, Conditions: s.Conditions}
	for _, n := range st.nodes {
		pods := st.pods[n.name]
		switch {
		case !n.bind && len(pods) > 0:
			s.NumberMisscheduled++
		case n.bind:
			s.DesiredNumberScheduled++
			if len(pods) == 0 {
				continue
			}
			s.CurrentNumberScheduled++
			if control.PodReady(pods[0]) {
				s.NumberReady++
				if st.available(pods[0]) {
					s.NumberAvailable++
				}
			}
			if st.updated(pods[0]) {
				s.UpdatedNumberScheduled++
			}
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	s.Conditions = st.condition(s.Conditions)
	return s
}

package sched_test

import (
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"petrel.dev/petrel/sched"
)

// TestPreemptionIsMinimal is TestSnapshotFollows on fleets that are full, so that most pods would have to preempt.
func TestPreemptionIsMinimal(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := &randomFleet{snap: sched.NewSnapshot(), nodes: map[string]*corev1.Node{}, pods: map[types.UID]*corev1.Pod{}, promised: map[types.UID]promise{}}
		for range 6 {
			f.node(r)
		}
		for range rapid.IntRange(5, 25).Draw(r, "pods") {
			p := f.draw(r)
			p.Spec.NodeName = nodeNames.Draw(r, "at")
			f.pods[p.UID] = p
			f.snap.SetPod(sched.NewPod(p))
		}
		f.leave(r)
		for range 5 {
			f.preempt(r, f.draw(r))
			f.nominate(r)
		}
	})
}

// TestSnapshotFollows does random things to one snapshot and compares its decisions with those of a snapshot that is made
// again each time: whatever is counted along the way must be what counting from the start gives. And what was decided is
// checked against the rules in their plainest form.
func TestSnapshotFollows(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := &randomFleet{snap: sched.NewSnapshot(), nodes: map[string]*corev1.Node{}, pods: map[types.UID]*corev1.Pod{}, promised: map[types.UID]promise{}}
		r.Repeat(map[string]func(*rapid.T){
			"node":        f.node,
			"remove node": f.removeNode,
			"pod":         f.pod,
			"more pods":   f.pod,
			"remove pod":  f.removePod,
			"leave":       f.leave,
			"nominate":    f.nominate,
		})
	})
}

type randomFleet struct {
	snap  *sched.Snapshot
	nodes map[string]*corev1.Node
	pods  map[types.UID]*corev1.Pod // with a node
	made  int
	// promised are pods without a node that are nominated to one.
	promised map[types.UID]promise
}

type promise struct {
	pod  *corev1.Pod
	node string
}

var (
	nodeNames = rapid.SampledFrom([]string{"n1", "n2", "n3", "n4"})
	apps      = rapid.SampledFrom([]string{"web", "db"})
)

func (f *randomFleet) node(r *rapid.T) {
	name := nodeNames.Draw(r, "node")
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if zone := rapid.SampledFrom([]string{"", "a", "b"}).Draw(r, "zone"); zone != "" {
		n.Labels["zone"] = zone
	}
	n.Spec.Unschedulable = rapid.IntRange(0, 5).Draw(r, "cordoned") == 0
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("8"),
		corev1.ResourceCPU: *resource.NewQuantity(int64(rapid.IntRange(1, 4).Draw(r, "cpu")), resource.DecimalSI)}
	f.nodes[name] = n
	f.snap.SetNode(n)
}

func (f *randomFleet) removeNode(r *rapid.T) {
	name := nodeNames.Draw(r, "node")
	delete(f.nodes, name)
	f.snap.RemoveNode(name)
}

func (f *randomFleet) some(r *rapid.T) *corev1.Pod {
	if len(f.pods) == 0 {
		r.Skip("no pod")
	}
	var uids []types.UID
	for i := range f.made {
		if uid := types.UID(fmt.Sprint("uid-", i)); f.pods[uid] != nil {
			uids = append(uids, uid)
		}
	}
	return f.pods[rapid.SampledFrom(uids).Draw(r, "pod")]
}

func (f *randomFleet) removePod(r *rapid.T) {
	p := f.some(r)
	delete(f.pods, p.UID)
	f.snap.RemovePod(p.UID)
}

func (f *randomFleet) leave(r *rapid.T) {
	p := f.some(r).DeepCopy()
	p.DeletionTimestamp = &metav1.Time{}
	f.pods[p.UID] = p
	f.snap.SetPod(sched.NewPod(p))
}

// nominate makes a promise, or takes one back.
func (f *randomFleet) nominate(r *rapid.T) {
	for uid, p := range f.promised {
		if len(f.promised) > 2 {
			delete(f.promised, uid)
			f.snap.Nominate(sched.NewPod(p.pod), "")
		}
	}
	p := promise{f.draw(r), nodeNames.Draw(r, "node")}
	f.promised[p.pod.UID] = p
	f.snap.Nominate(sched.NewPod(p.pod), p.node)
}

func (f *randomFleet) pod(r *rapid.T) {
	p := f.draw(r)
	got := f.snap.Schedule(sched.NewPod(p))
	if want := f.afresh().Schedule(sched.NewPod(p)); !reflect.DeepEqual(got, want) {
		r.Fatalf("got %+v, a new snapshot says %+v", got, want)
	}
	if !got.Fits() {
		f.preempt(r, p)
		return
	}
	f.check(r, p, f.nodes[got.Node])
	p = p.DeepCopy()
	p.Spec.NodeName = got.Node
	f.pods[p.UID] = p
	f.snap.SetPod(sched.NewPod(p))
}

// preempt checks whom the eviction for p would hit: only less important pods, and none that could stay.
func (f *randomFleet) preempt(r *rapid.T, p *corev1.Pod) {
	budgets := []sched.Budget{{Allowed: int32(rapid.IntRange(0, 2).Draw(r, "budget")), Charges: func(q *corev1.Pod) bool { return q.Labels["app"] == "db" }}}
	got := f.snap.Preempt(sched.NewPod(p), budgets)
	if again := f.afresh().Preempt(sched.NewPod(p), budgets); outcome(got) != outcome(again) {
		r.Fatalf("got %s, a new snapshot says %s", outcome(got), outcome(again))
	}
	if got.Node == "" {
		if got.Message() == "" && len(f.nodes) > 0 {
			r.Fatal("no node and no reason")
		}
		return
	}
	without := func(stays int) bool {
		s := f.afresh()
		for i, v := range got.Victims {
			if i != stays {
				s.RemovePod(v.Object.UID)
			}
		}
		return s.Admits(sched.NewPod(p), got.Node)
	}
	if !without(-1) {
		r.Fatalf("%s does not take %s without %s", got.Node, p.Name, outcome(got))
	}
	for i, v := range got.Victims {
		if v.Object.Spec.NodeName != got.Node || *v.Object.Spec.Priority >= *p.Spec.Priority {
			r.Fatalf("%s, priority %d on %s, is evicted for priority %d on %s", v.Object.Name, *v.Object.Spec.Priority, v.Object.Spec.NodeName, *p.Spec.Priority, got.Node)
		}
		if without(i) {
			r.Fatalf("%s could have stayed: %s", v.Object.Name, outcome(got))
		}
	}
}

func outcome(p sched.Preemption) string {
	text := p.Node + p.Message()
	for _, v := range p.Victims {
		text += " " + v.Object.Name
	}
	return text
}

// draw makes a pod.
func (f *randomFleet) draw(r *rapid.T) *corev1.Pod {
	app := apps.Draw(r, "app")
	other := apps.Draw(r, "other app")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod-", f.made), Namespace: "default", UID: types.UID(fmt.Sprint("uid-", f.made)),
		Labels: map[string]string{"app": app}}}
	f.made++
	priority := int32(rapid.IntRange(0, 3).Draw(r, "priority"))
	p.Spec.Priority = &priority
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewMilliQuantity(int64(rapid.IntRange(0, 8).Draw(r, "cpu"))*250, resource.DecimalSI)}}}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": other}}
	key := rapid.SampledFrom([]string{corev1.LabelHostname, "zone"}).Draw(r, "topology")
	terms := []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: selector}}
	switch rapid.IntRange(0, 5).Draw(r, "rule") {
	case 0:
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	case 1:
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	case 2:
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
	case 3:
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
			{Weight: 10, PodAffinityTerm: terms[0]}}}}
	}
	return p
}

func (f *randomFleet) afresh() *sched.Snapshot {
	s := sched.NewSnapshot()
	for _, p := range f.pods {
		s.SetPod(sched.NewPod(p))
	}
	for _, n := range f.nodes {
		s.SetNode(n)
	}
	for _, p := range f.promised {
		s.Nominate(sched.NewPod(p.pod), p.node)
	}
	return s
}

// check proves that p may go to n, going through everything there is.
func (f *randomFleet) check(r *rapid.T, p *corev1.Pod, n *corev1.Node) {
	if n.Spec.Unschedulable {
		r.Fatalf("%s is cordoned", n.Name)
	}
	cpu := func(p *corev1.Pod) int64 { return p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue() }
	used := cpu(p)
	for _, q := range f.pods {
		if q.Spec.NodeName == n.Name {
			used += cpu(q)
		}
	}
	for _, q := range f.promised {
		if q.node == n.Name && *q.pod.Spec.Priority >= *p.Spec.Priority {
			used += cpu(q.pod)
		}
	}
	if have := n.Status.Allocatable.Cpu().MilliValue(); cpu(p) > 0 && used > have {
		r.Fatalf("%s has %dm, %dm are promised", n.Name, have, used)
	}
	near := func(key string, q *corev1.Pod) bool {
		there := f.nodes[q.Spec.NodeName]
		return there != nil && there.Labels[key] != "" && there.Labels[key] == n.Labels[key]
	}
	for _, q := range f.pods {
		for _, t := range antiAffinity(p) {
			if near(t.TopologyKey, q) && q.Labels["app"] == t.LabelSelector.MatchLabels["app"] {
				r.Fatalf("%s was put beside %s, which it avoids", p.Name, q.Name)
			}
		}
		for _, t := range antiAffinity(q) {
			if near(t.TopologyKey, q) && p.Labels["app"] == t.LabelSelector.MatchLabels["app"] {
				r.Fatalf("%s was put beside %s, which avoids it", p.Name, q.Name)
			}
		}
	}
	for _, c := range p.Spec.TopologySpreadConstraints {
		counts := map[string]int{}
		for _, other := range f.nodes {
			if v := other.Labels[c.TopologyKey]; v != "" {
				counts[v] += 0
			}
		}
		for _, q := range f.pods {
			if at := f.nodes[q.Spec.NodeName]; at != nil && at.Labels[c.TopologyKey] != "" && q.DeletionTimestamp == nil && q.Labels["app"] == p.Labels["app"] {
				counts[at.Labels[c.TopologyKey]]++
			}
		}
		least := counts[n.Labels[c.TopologyKey]]
		for _, k := range counts {
			least = min(least, k)
		}
		if n.Labels[c.TopologyKey] == "" || counts[n.Labels[c.TopologyKey]]+1-least > int(c.MaxSkew) {
			r.Fatalf("%s on %s makes it uneven: %v", p.Name, n.Name, counts)
		}
	}
}

func antiAffinity(p *corev1.Pod) []corev1.PodAffinityTerm {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	return p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

// TestAssumedRequests checks that what is worked out for plain pods is what upstream's helper gives.
func TestAssumedRequests(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := &corev1.Pod{}
		for range rapid.IntRange(1, 3).Draw(r, "containers") {
			list := corev1.ResourceList{}
			if rapid.Bool().Draw(r, "cpu") {
				list[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(rapid.IntRange(0, 3).Draw(r, "milli"))*100, resource.DecimalSI)
			}
			if rapid.Bool().Draw(r, "memory") {
				list[corev1.ResourceMemory] = *resource.NewQuantity(int64(rapid.IntRange(0, 3).Draw(r, "bytes"))<<20, resource.BinarySI)
			}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: corev1.ResourceRequirements{Requests: list}})
		}
		// A pod with an init container that asks for nothing goes the long way, to the same sum.
		long := p.DeepCopy()
		long.Spec.InitContainers = []corev1.Container{{}}
		cpu, memory := sched.Scored(p)
		longCPU, longMemory := sched.Scored(long)
		if max(cpu, 100) != longCPU || max(memory, 200<<20) != longMemory {
			r.Fatalf("%d, %d, upstream says %d, %d", cpu, memory, longCPU, longMemory)
		}
	})
}

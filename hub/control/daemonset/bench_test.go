package daemonset

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/sched"
)

// One reconcile's decision and status, with a ready pod on each node.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{100, 300, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ds := daemons("v1")
			var nodes []*corev1.Node
			var mine podset.Claimed
			for i := range n {
				name := fmt.Sprintf("n%04d", i)
				nodes = append(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"class": "edge"}}})
				p := newPod(ds, "abc", name)
				p.Name, p.Spec.NodeName, p.Status.Phase = "agent-"+name, name, corev1.PodRunning
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
				mine.Active = append(mine.Active, p)
			}
			b.ReportAllocs()
			for b.Loop() {
				st := &state{ds: ds, now: time.Now(), hash: "abc", same: map[string]bool{"abc": true}, held: func(string) time.Duration { return 0 }}
				like := &corev1.Pod{Spec: *ds.Spec.Template.Spec.DeepCopy()}
				addTolerations(&like.Spec)
				rules := sched.RulesOf(like)
				for _, obj := range nodes {
					bind, stay := rules.Admit(obj)
					st.nodes = append(st.nodes, node{name: obj.Name, bind: bind, stay: stay})
				}
				st.place(mine)
				if a := decide(st); len(a.create)+len(a.remove) > 0 {
					b.Fatal("something is to be done")
				}
				st.status()
			}
		})
	}
}

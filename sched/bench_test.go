package sched_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/sched"
)

func fleet(n int) *sched.Snapshot {
	s := sched.NewSnapshot()
	for i := range n {
		name := fmt.Sprintf("node-%04d", i)
		s.SetNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%10), corev1.LabelArchStable: "arm64"}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110")}},
		})
	}
	return s
}

func replica(i int, spread bool) *corev1.Pod {
	yes := true
	app := fmt.Sprintf("app-%d", i/500)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", app, i), Namespace: "default", UID: types.UID(fmt.Sprint("uid-", i)),
			Labels:          map[string]string{"app": app},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: app, UID: types.UID(app), Controller: &yes}}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "app", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}}}}},
	}
	if spread {
		sel := &metav1.LabelSelector{MatchLabels: pod.Labels}
		pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
			{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: sel}}
		pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: sel}}}}
	}
	return pod
}

// BenchmarkSchedule decides and believes, from 0 to b.N pods on 1,000 nodes (10,000 at most, then again).
func BenchmarkSchedule(b *testing.B) {
	for _, spread := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "spread+antiaffinity"}[spread], func(b *testing.B) {
			s := fleet(1000)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%10_000 == 0 {
					s = fleet(1000)
				}
				pod := replica(i%10_000, spread)
				d := s.Schedule(sched.NewPod(pod))
				if !d.Fits() {
					b.Fatal(d.Message())
				}
				pod.Spec.NodeName = d.Node
				s.SetPod(sched.NewPod(pod))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// BenchmarkPreempt decides whom to evict on 1,000 nodes that are full, with 10 pods or with 110 each.
func BenchmarkPreempt(b *testing.B) {
	for _, pods := range []int{10, 110} {
		b.Run(fmt.Sprint(pods, "_pods_a_node"), func(b *testing.B) {
			s := fleet(1000)
			for i := range 1000 * pods {
				pod := replica(i, false)
				pod.Spec.NodeName = fmt.Sprintf("node-%04d", i%1000)
				pod.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(4000/pods), resource.DecimalSI)
				pod.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = resource.MustParse("1Mi")
				pod.Status.StartTime = &metav1.Time{Time: time.Unix(int64(i), 0)}
				s.SetPod(sched.NewPod(pod))
			}
			for _, spread := range []bool{false, true} {
				b.Run(map[bool]string{false: "plain", true: "spread+antiaffinity"}[spread], func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						pod, priority := replica(1_000_000+i, spread), int32(1000)
						pod.Spec.Priority = &priority
						prepared := sched.NewPod(pod)
						if d := s.Schedule(prepared); d.Fits() {
							b.Fatal("it fits")
						}
						if p := s.Preempt(prepared, nil); p.Node == "" {
							b.Fatal(p.Message())
						}
					}
					b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/pod")
				})
			}
		})
	}
}

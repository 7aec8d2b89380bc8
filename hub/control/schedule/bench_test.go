package schedule_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/internal/kube"
)

// BenchmarkScheduler binds b.N pods on 1,000 nodes through the whole loop, with a store in memory.
func BenchmarkScheduler(b *testing.B) {
	for _, spread := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "spread+antiaffinity"}[spread], func(b *testing.B) {
			c := controltest.New(b)
			for i := range 1000 {
				n := node(fmt.Sprintf("node-%04d", i), "64")
				n.Labels[corev1.LabelTopologyZone] = fmt.Sprintf("zone-%d", i%10)
				c.Put(n)
			}
			for i := range b.N {
				c.Put(replica(i, spread))
			}
			bound := make(chan struct{}, b.N)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c.Subscribe(ctx, func(ch control.Change) {
				if ch.New != nil && ch.New.(*corev1.Pod).Spec.NodeName != "" {
					bound <- struct{}{}
				}
			}, kube.Pod)
			s := schedule.New(schedule.Config{Client: c})
			b.ResetTimer()
			go s.Run(ctx)
			for range b.N {
				<-bound
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// replica is pod i of many, 500 to an owner; spread ones must be even over zones and alone on their hosts.
func replica(i int, spread bool) *corev1.Pod {
	p := pod(fmt.Sprintf("pod-%06d", i), "100m")
	app := fmt.Sprintf("app-%d", i/500)
	yes := true
	p.Labels = map[string]string{"app": app}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app, UID: types.UID(app), Controller: &yes}}
	if spread {
		sel := &metav1.LabelSelector{MatchLabels: p.Labels}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
			{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: sel}}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: sel}}}}
	}
	return p
}

package kubelet

import (
	"regexp"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNodeLease(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, LastHeartbeatTime: metav1.NewTime(noon)},
	}}}
	for _, c := range []struct {
		what      string
		n         *corev1.Node
		heard     time.Time
		keepalive time.Duration
		renewed   time.Time
		seconds   int32
	}{
		{"heard since its last status", n, noon.Add(time.Minute), time.Minute, noon.Add(time.Minute), 90},
		{"not heard since the hub started", n, time.Time{}, 0, noon, 40},
		{"a short keepalive", n, noon.Add(time.Minute), 10 * time.Second, noon.Add(time.Minute), 40},
		{"never heard of", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-1"}}, time.Time{}, 0, time.Time{}, 40},
	} {
		l := Lease(c.n, c.heard, c.keepalive)
		var renewed time.Time
		if l.Spec.RenewTime != nil {
			renewed = l.Spec.RenewTime.Time
		}
		if !renewed.Equal(c.renewed) || *l.Spec.LeaseDurationSeconds != c.seconds || *l.Spec.HolderIdentity != "n1" {
			t.Errorf("%s: renewed %v for %d s by %s", c.what, renewed, *l.Spec.LeaseDurationSeconds, *l.Spec.HolderIdentity)
		}
		if o := l.OwnerReferences; len(o) != 1 || o[0].UID != "uid-1" {
			t.Errorf("%s: owners %v", c.what, o)
		}
	}
	a, b := leaseUID("uid-1"), leaseUID("uid-2")
	if a != leaseUID("uid-1") || a == b || !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(string(a)) {
		t.Errorf("uids %s, %s", a, b)
	}
}

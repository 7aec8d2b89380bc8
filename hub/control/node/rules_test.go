package node

import (
	"math"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/kube"
)

func TestTolerated(t *testing.T) {
	unreachable := corev1.Taint{Key: kube.TaintUnreachable, Effect: corev1.TaintEffectNoExecute}
	custom := corev1.Taint{Key: "smoke", Value: "black", Effect: corev1.TaintEffectNoExecute}
	tol := func(key, op, value string, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOperator(op), Value: value, TolerationSeconds: seconds}
	}
	tests := []struct {
		name      string
		taint     corev1.Taint
		pod, node string // autonomy
		tols      []corev1.Toleration
		want      time.Duration
	}{
		{"nothing said, unreachable", unreachable, "", "", nil, 300 * time.Second},
		{"nothing said, another taint", custom, "", "", nil, 0},
		{"for ever", unreachable, "", "", []corev1.Toleration{tol(kube.TaintUnreachable, "Exists", "", nil)}, forever},
		{"everything for ever", custom, "", "", []corev1.Toleration{tol("", "Exists", "", nil)}, forever},
		{"the shortest of several", unreachable, "", "", []corev1.Toleration{tol("", "Exists", "", ptr.To[int64](60)), tol(kube.TaintUnreachable, "Exists", "", ptr.To[int64](30))}, 30 * time.Second},
		{"negative is at once", unreachable, "", "", []corev1.Toleration{tol(kube.TaintUnreachable, "Exists", "", ptr.To[int64](-1))}, 0},
		{"longer than a Duration holds", unreachable, "", "", []corev1.Toleration{tol(kube.TaintUnreachable, "Exists", "", ptr.To[int64](10_000_000_000))}, math.MaxInt64 / time.Second * time.Second},
		{"equal value", custom, "", "", []corev1.Toleration{tol("smoke", "Equal", "black", nil)}, forever},
		{"other value", custom, "", "", []corev1.Toleration{tol("smoke", "", "white", nil)}, 0},
		{"the pod's autonomy", unreachable, "72h", "", []corev1.Toleration{tol(kube.TaintUnreachable, "Exists", "", ptr.To[int64](30))}, 72 * time.Hour},
		{"the pod's before the node's", unreachable, "1m", "forever", nil, time.Minute},
		{"the node's", unreachable, "", "forever", nil, forever},
		{"autonomy is about darkness alone", custom, "forever", "forever", nil, 0},
		{"what cannot be read does not count", unreachable, "ever", "forever", nil, 300 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, n := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: tt.tols}}, &corev1.Node{}
			if tt.pod != "" {
				metav1.SetMetaDataAnnotation(&p.ObjectMeta, kube.AutonomyAnnotation, tt.pod)
			}
			if tt.node != "" {
				metav1.SetMetaDataAnnotation(&n.ObjectMeta, kube.AutonomyAnnotation, tt.node)
			}
			if got := tolerated(p, n, &tt.taint); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAllocator(t *testing.T) {
	if _, err := newAllocator(netip.MustParsePrefix("10.0.0.0/25")); err == nil {
		t.Error("a /25 has no room for a /24")
	}
	a, err := newAllocator(netip.MustParsePrefix("10.42.0.0/22"))
	if err != nil {
		t.Fatal(err)
	}
	var used []netip.Prefix
	for i := range 4 {
		p, err := a.free(used)
		if err != nil {
			t.Fatalf("network %d: %v", i, err)
		}
		used = append(used, p)
	}
	if _, err := a.free(used); err == nil {
		t.Error("a full network gave one more")
	}
	if p, err := a.free(used[1:]); err != nil || p != used[0] {
		t.Errorf("got %v, %v; want %v, which is free again", p, err, used[0])
	}
	big := []netip.Prefix{netip.MustParsePrefix("10.42.0.0/23"), used[3]}
	if p, err := a.free(big); err != nil || p != used[2] {
		t.Errorf("got %v, %v; want %v, the only one that does not overlap", p, err, used[2])
	}
}

func TestAllocatorNeverOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, err := newAllocator(netip.MustParsePrefix("10.42.0.0/20"))
		if err != nil {
			t.Fatal(err)
		}
		var used []netip.Prefix
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(used) > 0 && rapid.Bool().Draw(t, "free one") {
				i := rapid.IntRange(0, len(used)-1).Draw(t, "which")
				used = append(used[:i:i], used[i+1:]...)
				continue
			}
			p, err := a.free(used)
			if err != nil {
				if len(used) < 16 {
					t.Fatalf("%d of 16 in use: %v", len(used), err)
				}
				continue
			}
			for _, u := range used {
				if u.Overlaps(p) {
					t.Fatalf("%v overlaps %v", p, u)
				}
			}
			used = append(used, p)
		}
	})
}

// Whatever a node's state was, deciding twice is deciding once, and the user's own taints survive.
func TestTaintsAreStable(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := []string{kube.TaintNotReady, kube.TaintUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeDiskPressure, "example.org/mine"}
	effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute}
	statuses := []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown}
	rapid.Check(t, func(t *rapid.T) {
		n := &corev1.Node{}
		n.Spec.Unschedulable = rapid.Bool().Draw(t, "cordoned")
		mine := 0
		for _, k := range keys {
			for _, e := range effects {
				if rapid.Bool().Draw(t, k+string(e)) {
					n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: k, Effect: e})
					if k == "example.org/mine" {
						mine++
					}
				}
			}
		}
		for _, c := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeDiskPressure} {
			if rapid.Bool().Draw(t, string(c)) {
				n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: c, Status: rapid.SampledFrom(statuses).Draw(t, "status")})
			}
		}
		dark := rapid.Bool().Draw(t, "dark")
		n.Status.Conditions = conditions(n.Status.Conditions, nil, dark, now, now)
		n.Spec.Taints = taints(n, dark, now)
		again := conditions(n.Status.Conditions, nil, dark, now, now.Add(time.Hour))
		if len(again) != len(n.Status.Conditions) {
			t.Fatalf("conditions change again: %v", again)
		}
		for i := range again {
			if again[i] != n.Status.Conditions[i] {
				t.Fatalf("condition changes again: %v", again[i])
			}
		}
		second := taints(n, dark, now.Add(time.Hour))
		if len(second) != len(n.Spec.Taints) {
			t.Fatalf("taints change again: %v, %v", n.Spec.Taints, second)
		}
		unreachable := 0
		for _, x := range second {
			switch x.Key {
			case "example.org/mine":
				mine--
			case kube.TaintUnreachable:
				unreachable++
			}
		}
		if mine != 0 {
			t.Fatalf("the user's taints: %v", second)
		}
		if (unreachable == 2) != dark || unreachable == 1 {
			t.Fatalf("dark %v: %v", dark, second)
		}
	})
}

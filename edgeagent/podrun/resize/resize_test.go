package resize

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"
)

// TestDecide covers who gets what of a node with four CPUs.
func TestDecide(t *testing.T) {
	const gib = 1 << 30
	all := Amount{4000, 4 * gib}
	claim := func(uid string, has, wants int64, change ...func(*Claim)) Claim {
		c := Claim{UID: uid, Has: Amount{has, gib}, Wants: Amount{wants, gib}, Pending: has != wants}
		for _, f := range change {
			f(&c)
		}
		return c
	}
	prior := func(c *Claim) { c.Priority = 7 }
	waits := func(c *Claim) { c.Since = 9 }
	for name, test := range map[string]struct {
		claims []Claim
		reason string // of a
		text   string
	}{
		"room":                          {[]Claim{claim("a", 1000, 3000), claim("b", 1000, 1000)}, "", ""},
		"no room":                       {[]Claim{claim("a", 1000, 3001), claim("b", 1000, 1000)}, "Deferred", "Node didn't have enough resource: cpu, requested: 3001, used: 1000, capacity: 4000"},
		"more than the node":            {[]Claim{claim("a", 1000, 4001)}, "Infeasible", "Node didn't have enough capacity: cpu, requested: 4001, capacity: 4000"},
		"less always fits":              {[]Claim{claim("a", 3000, 2500), claim("b", 3000, 3000)}, "", ""},
		"memory":                        {[]Claim{{UID: "a", Has: Amount{1, gib}, Wants: Amount{1, 4 * gib}, Pending: true}, claim("b", 1, 1)}, "Deferred", "memory, requested: 4294967296, used: 1073741824"},
		"the one who waits comes first": {[]Claim{claim("a", 1000, 2500), claim("b", 1000, 2500, waits)}, "Deferred", "used: 2500"},
		"priority before waiting":       {[]Claim{claim("a", 1000, 2500, prior), claim("b", 1000, 2500, waits)}, "", ""},
		"who does not fit is passed":    {[]Claim{claim("a", 1000, 2500), claim("b", 1000, 3500, prior)}, "", ""},
		"what shrinks is free later":    {[]Claim{claim("a", 1000, 2500), claim("b", 2000, 500)}, "Deferred", "used: 2000"},
		"nothing is wanted":             {[]Claim{claim("a", 1000, 1000)}, "", ""},
	} {
		if v := Decide("a", test.claims, all); v.Reason != test.reason || !strings.Contains(v.Message, test.text) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestDecideNeverOvercommits lets each pending pod ask in any order: what is allocated in the end fits.
func TestDecideNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := Amount{4000, 4000}
		var claims []Claim
		left := all
		for i := range rapid.IntRange(1, 6).Draw(t, "pods") {
			c := Claim{UID: string(rune('a' + i)), Priority: rapid.Int32Range(0, 2).Draw(t, "priority"), Since: rapid.Int64Range(0, 3).Draw(t, "since")}
			c.Has = Amount{rapid.Int64Range(0, left.CPU).Draw(t, "cpu"), rapid.Int64Range(0, left.Memory).Draw(t, "memory")}
			left = Amount{left.CPU - c.Has.CPU, left.Memory - c.Has.Memory}
			c.Wants = Amount{rapid.Int64Range(0, 5000).Draw(t, "more cpu"), rapid.Int64Range(0, 5000).Draw(t, "more memory")}
			c.Pending = c.Wants != c.Has
			claims = append(claims, c)
		}
		first := settle(claims, all, rapid.Permutation(indexes(len(claims))).Draw(t, "order"))
		sum := Amount{}
		for _, c := range first {
			sum = Amount{sum.CPU + c.Has.CPU, sum.Memory + c.Has.Memory}
		}
		if sum.CPU > all.CPU || sum.Memory > all.Memory {
			t.Fatalf("allocated %+v of %+v", sum, all)
		}
	})
}

// settle asks for each pending pod, round after round, until nothing is allocated any more.
func settle(claims []Claim, all Amount, order []int) []Claim {
	out := append([]Claim(nil), claims...)
	for again := true; again; {
		again = false
		for _, i := range order {
			if out[i].Pending && Decide(out[i].UID, out, all).Reason == "" {
				out[i].Has, out[i].Pending, again = out[i].Wants, false, true
			}
		}
	}
	return out
}

func indexes(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// TestAllocation checks that an allocation takes the place of resources and of nothing else, and that the spec itself is not changed.
func TestAllocation(t *testing.T) {
	cpu := func(amount string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}}
	}
	old := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i", Resources: cpu("1")}}, Containers: []corev1.Container{{Name: "c", Image: "old", Resources: cpu("1")}}}}
	a := Of(old)
	if a.In(old) != old || (Allocation{}).In(old) != old || !(Allocation{}).None() || a.None() {
		t.Error("a pod that has what it wants is another one")
	}
	same := old.DeepCopy()
	same.Spec.Containers[0].Resources = cpu("1000m")
	if a.In(same) != same {
		t.Error("1000m is not 1")
	}
	pod := old.DeepCopy()
	pod.Spec.Containers[0].Resources, pod.Spec.Containers[0].Image, pod.Spec.Resources = cpu("2"), "new", new(cpu("3"))
	got := a.In(pod)
	if c := got.Spec.Containers[0]; c.Image != "new" || c.Resources.Requests.Cpu().String() != "1" || got.Spec.Resources != nil {
		t.Errorf("%+v", got.Spec)
	}
	if pod.Spec.Containers[0].Resources.Requests.Cpu().String() != "2" || pod.Spec.Resources == nil {
		t.Error("the spec is changed")
	}
}

package rollout

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/kube"
)

func annotations(pairs ...string) map[string]string {
	out := map[string]string{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		out[kube.RolloutPrefix+k] = v
	}
	return out
}

// TestParse covers what annotations mean, and that each value that cannot be used is refused with its key and a way out.
func TestParse(t *testing.T) {
	if s, p := Parse(map[string]string{"other": "x", kube.RolloutState: "{}", kube.RolloutApproved: "a/1"}); s != nil || p != nil {
		t.Errorf("a workload without settings is staged: %v, %v", s, p)
	}
	s, p := Parse(annotations("waves=ring in (a,b); 10% ;50%", "soak=90m", "approval=each", "max-failures=5%", "on-failure=rollback", "approved=abc/2"))
	if p != nil || len(s.Waves) != 4 || !s.Waves[0].Selects() || s.Waves[3].percent != 100 || s.soak != 90*time.Minute || s.maxFailures.of(39) != 1 || s.approved != (approval{"abc", 2}) {
		t.Errorf("%+v, %v", s, p)
	}
	for in, want := range map[string]string{
		"waves=":              "neither a percentage nor a selector",
		"waves=20%;10%":       "larger than the one before",
		"waves=120%":          "from 1% to 100%",
		"waves=a b":           "neither a percentage nor a selector",
		"waves=10%;;20%":      "neither a percentage nor a selector",
		"soak=1 hour":         "such as 30m",
		"soak=-1h":            "from 0s",
		"pod-deadline=1s":     "from 10s",
		"approval=yes":        `"none" or "each"`,
		"on-failure=rollback": "needs " + kube.RolloutMaxFailures,
		"max-failures=many":   "such as 0 or 3",
		"max-failures=101%":   "5% of all",
		"paused=yes":          `"false" or "true"`,
		"wave=10%":            "there is no such setting",
	} {
		key, _, _ := strings.Cut(in, "=")
		s, problems := Parse(annotations(in))
		if len(problems) != 1 || problems[0].Key != kube.RolloutPrefix+key || !strings.Contains(problems[0].String(), want) {
			t.Errorf("%s: %+v, %v; want %s", in, s, problems, want)
		}
	}
	if _, problems := Parse(annotations("waves=1%", "approved=abc")); len(problems) != 1 || !strings.Contains(problems[0].Reason, "REVISION/WAVE") {
		t.Errorf("%v", problems)
	}
	long := strings.Repeat("x,", 5000)
	if _, problems := Parse(annotations("soak=" + long)); len(problems) != 1 || len(problems[0].String()) > 300 {
		t.Errorf("a long value is repeated: %d bytes", len(problems[0].String()))
	}
}

// TestPlace holds for all fleets and waves: each node is in one wave, a percentage has as many nodes as it should, a label's wave has its nodes,
// and nodes that come change little.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []Node
		for i := range rapid.IntRange(0, 60).Draw(t, "nodes") {
			nodes = append(nodes, Node{Name: fmt.Sprintf("n%02d", i), Labels: map[string]string{"ring": rapid.SampledFrom([]string{"canary", "none", "none"}).Draw(t, "ring")},
				Dark: rapid.Bool().Draw(t, "dark"), Updated: rapid.Bool().Draw(t, "updated"), Healthy: rapid.Bool().Draw(t, "healthy")})
		}
		first := rapid.IntRange(1, 98).Draw(t, "first")
		second := rapid.IntRange(first+1, 99).Draw(t, "second")
		s, problems := Parse(annotations(fmt.Sprintf("waves=ring=canary;%d%%;%d%%", first, second)))
		if problems != nil {
			t.Fatal(problems)
		}
		waves, progress := s.Place("seed", nodes)
		if len(waves) != len(nodes) || len(progress) != 4 {
			t.Fatalf("%d of %d nodes are placed, in %d waves", len(waves), len(nodes), len(progress))
		}
		count := map[int]int{}
		dark := 0
		for _, n := range nodes {
			count[waves[n.Name]]++
			if n.Dark {
				dark++
			}
			if canary := n.Labels["ring"] == "canary"; canary != (waves[n.Name] == 0) {
				t.Fatalf("%s is in wave %d", n.Name, waves[n.Name])
			}
		}
		if got, want := count[0]+count[1], max(count[0], share(first, len(nodes))); got != want {
			t.Fatalf("%d nodes in the first two waves, want %d", got, want)
		}
		if last := progress[3]; last.Size != len(nodes)-dark || last.Healthy > last.Updated || last.Updated > last.Size {
			t.Fatalf("%+v of %d nodes, %d dark", last, len(nodes), dark)
		}
		again, _ := s.Place("seed", nodes)
		if !maps.Equal(waves, again) {
			t.Fatal("another order at the second time")
		}
	})
}

// TestFailed covers which pods count as failed, and when the others will.
func TestFailed(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s, _ := Parse(annotations("waves=1%", "pod-deadline=5m"))
	for name, c := range map[string]struct {
		age    time.Duration
		status corev1.PodStatus
		failed bool
		wait   time.Duration
	}{
		"new":         {time.Minute, corev1.PodStatus{}, false, 4 * time.Minute},
		"late":        {5 * time.Minute, corev1.PodStatus{}, true, 0},
		"ended":       {0, corev1.PodStatus{Phase: corev1.PodFailed}, true, 0},
		"crashing":    {0, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}}, true, 0},
		"pulling":     {time.Minute, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}}, false, 4 * time.Minute},
		"just unwell": {time.Hour, corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute))}}}, false, 4 * time.Minute},
	} {
		failed, wait := s.Failed(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-c.age))}, Status: c.status}, now)
		if failed != c.failed || wait != c.wait {
			t.Errorf("%s: %v, %v", name, failed, wait)
		}
	}
}

// TestStateOfOthers begins anew when the annotation holds nonsense: it never panics, and never opens more than the first wave of a rollout that runs.
func TestStateOfOthers(t *testing.T) {
	s, _ := Parse(annotations("waves=10%;50%"))
	for _, text := range []string{"", "x", "{}", `{"revision":"b","wave":-3}`, `{"revision":"b","wave":0}`, `{"wave":"x"}`, `null`, `[]`} {
		a := annotations("waves=10%;50%", "state="+text)
		d := s.Decide(Seen{Annotations: a, Revision: "b", Previous: "a", Total: 10, Progress: s.Counted(10, 0, 0, 0), Now: time.Unix(1, 0)})
		if d.Open != 1 || d.State.Wave != 1 || d.State.Done {
			t.Errorf("%q: %+v", text, d)
		}
	}
	d := s.Decide(Seen{Annotations: annotations(`state={"revision":"b","wave":99}`), Revision: "b", Total: 10, Progress: s.Counted(10, 0, 0, 0), Now: time.Unix(1, 0)})
	if d.Open != 3 {
		t.Errorf("%+v", d)
	}
}

// TestShareOfManyReplicas takes parts of the most replicas that the API takes: their product with a percentage needs 64 bits.
func TestShareOfManyReplicas(t *testing.T) {
	if got := share(50, math.MaxInt32); got != 1<<30 {
		t.Errorf("a wave of a half has %d", got)
	}
	if got := (quantity{percent: 50}).of(math.MaxInt32); got != 1<<30-1 {
		t.Errorf("a half, rounded down, is %d", got)
	}
}

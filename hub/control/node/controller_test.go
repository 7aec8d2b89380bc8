package node

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// sessions is a Presence that a test turns by hand.
type sessions struct {
	mu   sync.Mutex
	up   map[string]bool
	seen map[string]time.Time
	f    func(string)
}

func newSessions() *sessions {
	return &sessions{up: map[string]bool{}, seen: map[string]time.Time{}, f: func(string) {}}
}

func (s *sessions) Presence(node string) (bool, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up[node], s.seen[node]
}

func (s *sessions) Watch(ctx context.Context, f func(string)) {
	s.mu.Lock()
	s.f = f
	s.mu.Unlock()
	<-ctx.Done()
}

func (s *sessions) set(node string, up bool) {
	s.mu.Lock()
	s.up[node] = up
	s.seen[node] = time.Now()
	f := s.f
	s.mu.Unlock()
	f(node)
	synctest.Wait()
}

func readyNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady"}}}}
}

func podOn(node, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
}

func startNode(t *testing.T, c *controltest.Client, s *sessions) *Controller {
	ctl, err := New(Config{Client: c, Events: &controltest.Events{}, Presence: s, PodCIDR: netip.MustParsePrefix("10.42.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
	return ctl
}

func getNode(c *controltest.Client, name string) *corev1.Node {
	n, _ := control.Get[*corev1.Node](c, kube.Node, "", name)
	return n
}

// A Node that is made while the hub runs has its grace from then on: its device may take a moment to open a session.
func TestNewNodeIsNotDark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, readyNode("a"))
		s := newSessions()
		s.set("a", true)
		startNode(t, c, s)
		time.Sleep(time.Hour)
		if _, err := c.Create(t.Context(), readyNode("late")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(39 * time.Second)
		if control.NodeDark(getNode(c, "late")) {
			t.Error("a new node is dark before its grace is over")
		}
		time.Sleep(2 * time.Second)
		if !control.NodeDark(getNode(c, "late")) {
			t.Error("a node that never came is not dark")
		}
	})
}

func TestDarkAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, readyNode("a"), readyNode("b"), podOn("a", "p"))
		s := newSessions()
		s.set("a", true)
		s.set("b", true)
		startNode(t, c, s)
		if got := getNode(c, "a").Spec.PodCIDR + " " + getNode(c, "b").Spec.PodCIDR; got != "10.42.0.0/24 10.42.1.0/24" {
			t.Errorf("pod networks: %s", got)
		}
		if tn := getNode(c, "a").Spec.Taints; len(tn) != 0 {
			t.Errorf("taints of a well node: %v", tn)
		}
		c.Writes()
		time.Sleep(24 * time.Hour)
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("idle controller wrote %q", w)
		}
		s.set("a", false)
		time.Sleep(39 * time.Second)
		if control.NodeDark(getNode(c, "a")) {
			t.Error("dark before its grace is over")
		}
		time.Sleep(2 * time.Second)
		n := getNode(c, "a")
		if !control.NodeDark(n) || control.NodeCondition(n, corev1.NodeReady).Status != corev1.ConditionUnknown || len(n.Spec.Taints) != 2 {
			t.Fatalf("dark node: %+v %+v", n.Status.Conditions, n.Spec.Taints)
		}
		p, _ := control.Get[*corev1.Pod](c, kube.Pod, "default", "p")
		if control.PodReady(p) {
			t.Error("pod on a dark node is ready")
		}
		s.set("a", true)
		n = getNode(c, "a")
		if control.NodeDark(n) || len(n.Spec.Taints) != 0 {
			t.Errorf("node that is back: %+v %+v", n.Status.Conditions, n.Spec.Taints)
		}
		p, _ = control.Get[*corev1.Pod](c, kube.Pod, "default", "p")
		if !control.PodReady(p) || p.DeletionTimestamp != nil {
			t.Errorf("pod of a node that is back: %+v", p)
		}
	})
}

// TestPodsOfADeletedNodeEndFailed checks that a pod which stays in the API for a finalizer does not stay Running when its Node is gone.
func TestPodsOfADeletedNodeEndFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := podOn("lost", "kept")
		kept.Finalizers = []string{"example.com/count"}
		c := controltest.New(t, kept, podOn("lost", "plain"))
		startNode(t, c, newSessions())
		time.Sleep(time.Minute)
		synctest.Wait()
		left := c.Stored(kube.Pod, "default")
		if len(left) != 1 {
			t.Fatalf("%d pods are left", len(left))
		}
		p := left[0].(*corev1.Pod)
		d := control.PodCondition(p, corev1.DisruptionTarget)
		if p.Name != "kept" || p.DeletionTimestamp == nil || p.Status.Phase != corev1.PodFailed || d == nil || d.Reason != "DeletionByPodGC" {
			t.Errorf("%s: %+v", p.Name, p.Status)
		}
	})
}

// TestEvictedPodsSayWhy checks that a pod which a taint drives out has the reason in its status, and is written again when another
// writer was faster.
func TestEvictedPodsSayWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := readyNode("n")
		n.Spec.Taints = []corev1.Taint{{Key: "leave", Effect: corev1.TaintEffectNoExecute}}
		p := podOn("n", "p")
		p.Finalizers = []string{"example.com/keep"}
		c := controltest.New(t, n, p)
		refused := 0
		c.Refuse = func(verb string, obj kube.Object, sub string) error {
			if obj.GetName() == "p" && sub == "status" && refused < 2 {
				refused++
				return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "p", errors.New("it has changed"))
			}
			return nil
		}
		s := newSessions()
		s.up["n"] = true
		startNode(t, c, s)
		time.Sleep(time.Minute)
		synctest.Wait()
		got := c.Stored(kube.Pod, "default")[0].(*corev1.Pod)
		d := control.PodCondition(got, corev1.DisruptionTarget)
		if got.DeletionTimestamp == nil || refused != 2 || d == nil || d.Status != corev1.ConditionTrue || d.Reason != "DeletionByTaintManager" ||
			d.Message != "Taint manager: deleting due to NoExecute taint" {
			t.Errorf("deleted: %t, after %d conflicts, condition %+v", got.DeletionTimestamp != nil, refused, d)
		}
	})
}

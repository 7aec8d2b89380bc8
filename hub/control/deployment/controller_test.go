package deployment

import (
	"fmt"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/replicaset"
	"petrel.dev/petrel/internal/kube"
)

func web(n int32, image string) *appsv1.Deployment {
	l := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: l},
			Template:                corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}},
			ProgressDeadlineSeconds: ptr.To[int32](600), RevisionHistoryLimit: ptr.To[int32](2),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromString("25%")), MaxUnavailable: ptr.To(intstr.FromString("25%"))}},
		},
	}
}

// world is a cluster with the two controllers, and a scheduler and kubelets that a test turns by hand.
type world struct {
	t      *testing.T
	c      *controltest.Client
	events *controltest.Events
	broken map[string]bool // images that never become ready
	// crashing are those of them whose containers do not start.
	crashing map[string]bool
	// slow are nodes without the images of the template, with what to call when they have them.
	slow map[string]func()
	next int
}

func newWorld(t *testing.T, objs ...kube.Object) *world {
	w := &world{t: t, c: controltest.New(t, objs...), events: &controltest.Events{}, broken: map[string]bool{}, crashing: map[string]bool{}, slow: map[string]func(){}}
	d := New(Config{Client: w.c, Events: w.events, Images: w})
	rs := replicaset.New(replicaset.Config{Client: w.c, Events: &controltest.Events{}})
	go func() { _ = d.Run(t.Context()) }()
	go func() { _ = rs.Run(t.Context()) }()
	synctest.Wait()
	return w
}

// Ready implements podset.Images.
func (w *world) Ready(_ kube.Object, n *corev1.Node, _ string, _ *corev1.PodSpec, wake func()) bool {
	if w.slow[n.Name] == nil {
		return true
	}
	w.slow[n.Name] = wake
	return false
}

func (w *world) deployment() *appsv1.Deployment {
	d, ok := control.Get[*appsv1.Deployment](w.c, kube.Deployment, "default", "web")
	if !ok {
		w.t.Fatal("no Deployment")
	}
	return d.DeepCopy()
}

func (w *world) edit(f func(d *appsv1.Deployment)) {
	d := w.deployment()
	f(d)
	if _, err := w.c.Update(w.t.Context(), d, ""); err != nil {
		w.t.Fatal(err)
	}
	w.settle()
}

// settle waits until the controllers have nothing to do (conflicts come again within a second).
func (w *world) settle() {
	for range 5 {
		synctest.Wait()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// turn lets the scheduler and all live kubelets act once: pods are bound, become ready, or are gone.
func (w *world) turn() {
	var live []string
	dark := map[string]bool{}
	for _, n := range control.List[*corev1.Node](w.c, kube.Node, "") {
		if control.NodeDark(n) {
			dark[n.Name] = true
		} else {
			live = append(live, n.Name)
		}
	}
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		if dark[p.Spec.NodeName] {
			continue
		}
		if p.DeletionTimestamp != nil {
			w.c.Remove(kube.Pod, p.Namespace, p.Name)
			continue
		}
		p = p.DeepCopy()
		if p.Spec.NodeName == "" && len(live) > 0 {
			p.Spec.NodeName = live[w.next%len(live)]
			w.next++
		}
		if p.Spec.NodeName != "" && !control.PodReady(p) && !w.broken[p.Spec.Containers[0].Image] {
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		}
		if w.crashing[p.Spec.Containers[0].Image] {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		}
		w.c.Put(p)
	}
	w.settle()
}

// images counts active pods by image and readiness, from the truth.
func (w *world) images() string {
	n := map[string]int{}
	for _, o := range w.c.Stored(kube.Pod, "") {
		p := o.(*corev1.Pod)
		if !control.PodActive(p) {
			continue
		}
		k := p.Spec.Containers[0].Image
		if !control.PodReady(p) {
			k += "-unready"
		}
		n[k]++
	}
	var keys []string
	for k := range n {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	s := ""
	for _, k := range keys {
		s += fmt.Sprintf("%s=%d ", k, n[k])
	}
	return s
}

func (w *world) progressing() string {
	if c := condition(&w.deployment().Status, appsv1.DeploymentProgressing); c != nil {
		return fmt.Sprintf("%s %s", c.Status, c.Reason)
	}
	return "-"
}

func TestRollsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, web(4, "v1"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		w.settle()
		w.turn()
		if got := w.images(); got != "v1=4 " || w.progressing() != "True NewReplicaSetAvailable" {
			t.Fatalf("first rollout: %s, %s, %+v", got, w.progressing(), w.deployment().Status)
		}
		if d := w.deployment(); d.Annotations[revisionAnnotation] != "1" || d.Status.ObservedGeneration != d.Generation {
			t.Errorf("deployment: %v %+v", d.Annotations, d.Status)
		}
		for i := 2; i <= 5; i++ {
			image := fmt.Sprintf("v%d", i)
			w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image })
			for range 8 {
				w.turn()
			}
			if got := w.images(); got != image+"=4 " || w.progressing() != "True NewReplicaSetAvailable" {
				t.Fatalf("rollout %d: %s, %s", i, got, w.progressing())
			}
		}
		if n := len(w.c.List(kube.ReplicaSet, "")); n != 3 {
			t.Errorf("%d ReplicaSets, want the current one and a history of 2", n)
		}
		// Undo to v4: its ReplicaSet gets the next revision and remembers its first.
		w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v4" })
		for range 8 {
			w.turn()
		}
		d := w.deployment()
		if d.Annotations[revisionAnnotation] != "6" || w.images() != "v4=4 " {
			t.Errorf("after undo: revision %s, %s", d.Annotations[revisionAnnotation], w.images())
		}
		for _, rs := range control.List[*appsv1.ReplicaSet](w.c, kube.ReplicaSet, "") {
			if *rs.Spec.Replicas == 4 && (rs.Annotations[historyAnnotation] != "4" || rs.Annotations[revisionAnnotation] != "6") {
				t.Errorf("annotations: %v", rs.Annotations)
			}
		}
		w.c.Writes()
		time.Sleep(24 * time.Hour)
		if got := w.c.Writes(); len(got) > 0 {
			t.Errorf("idle controllers wrote %q", got)
		}
	})
}

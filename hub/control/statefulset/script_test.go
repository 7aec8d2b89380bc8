package statefulset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	"petrel.dev/petrel/internal/kube"
)

// The scripts are timelines. Commands:
//
//	set key=value...      creates the StatefulSet web, or edits it: image replicas policy strategy partition unavailable (maxUnavailable) minready start history
//	                      claim=NAME (a template), deleted=Retain|Delete scaled=Retain|Delete (their retention)
//	turn [n]              scheduler and live kubelets act once (or n times), and shows
//	until-still           turns until nothing changes, showing each turn
//	broken v2             pods of that image never become ready; fixed v2: again they do
//	slow n1               the node of web-1 has no image ahead until "fetched n1"
//	dark, back            kubelets do nothing, and pods are not ready; or are there again. With a node: that one's, and it is dark or not
//	fail web-1 [Succeeded] the pod has ended
//	delete web-1          a user deletes the pod
//	remove-claim NAME     the claim is gone
//	wait 10m              time passes
//	show                  the pods by ordinal, and the status
//	claims                the claims with the owners of each
//	events                the Events since the last time
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := newWorld(t)
		controltest.Script(t, path, w.command)
	})
}

// world is a cluster with the controller, and a scheduler and kubelets that a script turns by hand.
type world struct {
	t      *testing.T
	c      *controltest.Client
	events *controltest.Events
	broken map[string]bool // images that never become ready
	// slow are nodes without the images of the template, with what to call when they have them.
	slow map[string]func()
	dark bool
	away map[string]bool // nodes that are dark
}

func newWorld(t *testing.T, objs ...kube.Object) *world {
	w := &world{t: t, c: controltest.New(t, objs...), events: &controltest.Events{}, broken: map[string]bool{}, slow: map[string]func(){}, away: map[string]bool{}}
	ctl := New(Config{Client: w.c, Events: w.events, Images: w})
	go func() { _ = ctl.Run(t.Context()) }()
	w.settle()
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

// settle waits until the controller has nothing to do (conflicts come again within a second).
func (w *world) settle() {
	for range 3 {
		synctest.Wait()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

func web(replicas int32, image string) *appsv1.StatefulSet {
	l := map[string]string{"app": "web"}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "nginx", Selector: &metav1.LabelSelector{MatchLabels: l}, RevisionHistoryLimit: ptr.To[int32](2),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}},
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32)}},
			PodManagementPolicy: appsv1.OrderedReadyPodManagement,
		},
	}
}

func (w *world) stored() *appsv1.StatefulSet {
	s, ok := control.Get[*appsv1.StatefulSet](w.c, kube.StatefulSet, "default", "web")
	if !ok {
		return nil
	}
	return s.DeepCopy()
}

func (w *world) command(cmd string, args []string) string {
	switch cmd {
	case "set":
		s, write := w.stored(), func(s *appsv1.StatefulSet) (kube.Object, error) { return w.c.Update(w.t.Context(), s, "") }
		if s == nil {
			s, write = web(1, "v1"), func(s *appsv1.StatefulSet) (kube.Object, error) { return w.c.Create(w.t.Context(), s) }
		}
		w.configure(s, args)
		if _, err := write(s); err != nil {
			w.t.Fatal(err)
		}
	case "turn":
		n, _ := strconv.Atoi(append(args, "1")[0])
		for range n {
			w.turn()
		}
		return w.show()
	case "until-still":
		return w.untilStill()
	case "broken", "fixed":
		w.broken[args[0]] = cmd == "broken"
	case "slow":
		w.c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: args[0]}})
		w.slow[args[0]] = func() {}
	case "fetched":
		wake := w.slow[args[0]]
		delete(w.slow, args[0])
		wake()
	case "dark", "back":
		if len(args) > 0 {
			w.outage(args[0], cmd == "dark")
			break
		}
		w.dark = cmd == "dark"
		w.setReady(!w.dark)
	case "fail":
		p, _ := control.Get[*corev1.Pod](w.c, kube.Pod, "default", args[0])
		p = p.DeepCopy()
		p.Status.Phase, p.Status.Conditions = corev1.PodPhase(append(args[1:], string(corev1.PodFailed))[0]), nil
		w.c.Put(p)
	case "delete":
		if err := w.c.Delete(w.t.Context(), kube.Pod, "default", args[0], metav1.DeleteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	case "remove-claim":
		w.c.Remove(kube.PersistentVolumeClaim, "default", args[0])
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "show":
		return w.show()
	case "claims":
		return w.claims()
	case "events":
		return strings.Join(w.events.Take(), "\n")
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	w.settle()
	return ""
}

func (w *world) untilStill() string {
	var b strings.Builder
	last := w.show()
	for range 50 {
		w.turn()
		now := w.show()
		if now == last {
			return b.String()
		}
		last = now
		b.WriteString(now + "\n")
	}
	w.t.Fatal("it never becomes still")
	return ""
}

func (w *world) configure(s *appsv1.StatefulSet, args []string) {
	retention := func() *appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy {
		p := policy(s)
		s.Spec.PersistentVolumeClaimRetentionPolicy = &p
		return &p
	}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		i, _ := strconv.Atoi(v)
		n := int32(i)
		switch k {
		case "image":
			s.Spec.Template.Spec.Containers[0].Image = v
		case "replicas":
			s.Spec.Replicas = &n
		case "policy":
			s.Spec.PodManagementPolicy = appsv1.PodManagementPolicyType(v)
		case "strategy":
			s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.StatefulSetUpdateStrategyType(v)}
		case "partition":
			s.Spec.UpdateStrategy.RollingUpdate.Partition = &n
		case "unavailable":
			m := intstr.Parse(v)
			s.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &m
		case "minready":
			s.Spec.MinReadySeconds = n
		case "start":
			s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n}
		case "history":
			s.Spec.RevisionHistoryLimit = &n
		case "claim":
			s.Spec.VolumeClaimTemplates = append(s.Spec.VolumeClaimTemplates, corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: v}})
		case "deleted":
			retention().WhenDeleted = appsv1.PersistentVolumeClaimRetentionPolicyType(v)
		case "scaled":
			retention().WhenScaled = appsv1.PersistentVolumeClaimRetentionPolicyType(v)
		default:
			w.t.Fatalf("no setting %q", k)
		}
	}
}

// turn lets the scheduler and the kubelets act once: pods are bound, become ready, or are gone.
func (w *world) turn() {
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		switch {
		case w.dark || w.away[p.Spec.NodeName]:
		case p.DeletionTimestamp != nil:
			w.c.Remove(kube.Pod, p.Namespace, p.Name)
		default:
			p = p.DeepCopy()
			p.Spec.NodeName = "n" + strings.TrimPrefix(p.Name, "web-")
			if !control.PodFinished(p) && !control.PodReady(p) && !w.broken[p.Spec.Containers[0].Image] {
				p.Status.Phase = corev1.PodRunning
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			}
			w.c.Put(p)
		}
	}
	w.settle()
}

// outage makes a node dark or brings it back, as the node controller does: pods that were ready are again before the node is.
func (w *world) outage(node string, dark bool) {
	w.away[node] = dark
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if dark {
		n.Status.Conditions = []corev1.NodeCondition{{Type: kube.DarkCondition, Status: corev1.ConditionTrue}}
		w.c.Put(n)
		synctest.Wait()
	}
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		if p.Spec.NodeName == node && len(p.Status.Conditions) > 0 {
			p = p.DeepCopy()
			p.Status.Conditions[0].Status = map[bool]corev1.ConditionStatus{true: corev1.ConditionFalse, false: corev1.ConditionTrue}[dark]
			w.c.Put(p)
		}
	}
	if !dark {
		synctest.Wait()
		w.c.Put(n)
	}
}

func (w *world) setReady(ready bool) {
	status := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[ready]
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		if len(p.Status.Conditions) > 0 {
			p = p.DeepCopy()
			p.Status.Conditions[0].Status = status
			w.c.Put(p)
		}
	}
}

// show prints the pods by ordinal, and the status's counts with the images of its revisions.
func (w *world) show() string {
	pods := w.c.Stored(kube.Pod, "")
	slices.SortFunc(pods, func(a, b kube.Object) int {
		x, _ := ordinal(w.stored(), a.GetName())
		y, _ := ordinal(w.stored(), b.GetName())
		return x - y
	})
	var parts []string
	for _, o := range pods {
		p := o.(*corev1.Pod)
		what := strings.TrimPrefix(p.Name, "web-") + ": " + p.Spec.Containers[0].Image
		switch {
		case p.DeletionTimestamp != nil:
			what += " going"
		case control.PodFinished(p):
			what += " " + strings.ToLower(string(p.Status.Phase))
		case !control.PodReady(p):
			what += " unready"
		}
		parts = append(parts, what)
	}
	s := w.stored().Status
	return fmt.Sprintf("%s | replicas %d, ready %d, available %d, current %s %d, update %s %d", strings.Join(parts, ", "),
		s.Replicas, s.ReadyReplicas, s.AvailableReplicas, w.image(s.CurrentRevision), s.CurrentReplicas, w.image(s.UpdateRevision), s.UpdatedReplicas)
}

// claims prints each claim with the owners it has.
func (w *world) claims() string {
	var b strings.Builder
	for _, c := range w.c.Stored(kube.PersistentVolumeClaim, "") {
		b.WriteString(c.GetName())
		for _, r := range c.GetOwnerReferences() {
			b.WriteString(" " + r.Kind + "/" + r.Name)
		}
		b.WriteString("\n")
	}
	return b.String()
}

package daemonset

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
//	node a key=value...   a node with these labels, new or instead of what it was; taint=KEY:EFFECT adds a taint
//	gone a                the Node is deleted
//	daemons key=value...  creates the DaemonSet: image unavailable surge strategy minready history selector
//	set key=value...      edits it: the same keys
//	turn [n]              scheduler and live kubelets act once (or n times), and shows
//	until-still           turns until nothing changes, showing each turn
//	annotate key=value    sets petrel.dev/rollout-KEY, or removes it when the value is empty
//	stage                 the condition of the staged rollout
//	crashing v2           containers of that image do not start
//	slow a                the node has no image ahead until "fetched a"
//	broken v2             pods of that image never become ready
//	dark a, back a        the node's session ends (and its pods become not ready), or is there again
//	fail a [Succeeded]    the pod on the node has failed (or succeeded)
//	wait 10m              time passes
//	show                  the pods of each node, and the status
//	revisions             number, image and label of each revision, * for the current one
//	events                the Events since the last time
//	rollouts              those of them that are about staged rollouts
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
	// crashing are those of them whose containers do not start.
	crashing map[string]bool
	// slow are nodes without the images of the template, with what to call when they have them.
	slow map[string]func()
	// image and number are the DaemonSet's template and its number, as last seen.
	image, number string
}

func newWorld(t *testing.T, objs ...kube.Object) *world {
	w := &world{t: t, c: controltest.New(t, objs...), events: &controltest.Events{}, broken: map[string]bool{}, crashing: map[string]bool{}, slow: map[string]func(){}}
	ctl := New(Config{Client: w.c, Events: w.events, Images: w})
	go func() { _ = ctl.Run(t.Context()) }()
	w.settle()
	return w
}

// count gives the DaemonSet's template another number when the controller has changed it, as the API does.
func (w *world) count() {
	ds, ok := control.Get[*appsv1.DaemonSet](w.c, kube.DaemonSet, "default", "agent")
	if !ok {
		return
	}
	image, number := ds.Spec.Template.Spec.Containers[0].Image, ds.Annotations[appsv1.DeprecatedTemplateGeneration]
	if w.image != "" && w.image != image && w.number == number {
		n, _ := strconv.Atoi(number)
		number = strconv.Itoa(n + 1)
		ds = ds.DeepCopy()
		ds.Annotations[appsv1.DeprecatedTemplateGeneration] = number
		w.c.Put(ds)
	}
	w.image, w.number = image, number
}

// settle waits until the controller has nothing to do (conflicts come again within a second).
func (w *world) settle() {
	for range 3 {
		synctest.Wait()
		w.count()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// Ready implements podset.Images.
func (w *world) Ready(_ kube.Object, n *corev1.Node, _ string, _ *corev1.PodSpec, wake func()) bool {
	if w.slow[n.Name] == nil {
		return true
	}
	w.slow[n.Name] = wake
	return false
}

func daemons(image string) *appsv1.DaemonSet {
	l := map[string]string{"app": "agent"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent", Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "1"}},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: l}, RevisionHistoryLimit: ptr.To[int32](2),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(1)), MaxSurge: ptr.To(intstr.FromInt32(0))}},
		},
	}
}

func (w *world) set() *appsv1.DaemonSet {
	ds, ok := control.Get[*appsv1.DaemonSet](w.c, kube.DaemonSet, "default", "agent")
	if !ok {
		w.t.Fatal("no DaemonSet")
	}
	return ds.DeepCopy()
}

func (w *world) command(cmd string, args []string) string {
	switch cmd {
	case "node":
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: args[0], Labels: map[string]string{}}}
		for _, a := range args[1:] {
			k, v, _ := strings.Cut(a, "=")
			if k == "taint" {
				key, effect, _ := strings.Cut(v, ":")
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffect(effect)})
				continue
			}
			n.Labels[k] = v
		}
		w.c.Put(n)
	case "gone":
		w.c.Remove(kube.Node, "", args[0])
	case "daemons":
		ds := daemons("v1")
		w.configure(ds, args)
		if _, err := w.c.Create(w.t.Context(), ds); err != nil {
			w.t.Fatal(err)
		}
	case "set":
		ds := w.set()
		was := ds.Spec.Template.Spec.Containers[0].Image
		w.configure(ds, args)
		if ds.Spec.Template.Spec.Containers[0].Image != was { // as the API counts templates
			n, _ := strconv.Atoi(ds.Annotations[appsv1.DeprecatedTemplateGeneration])
			ds.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.Itoa(n + 1)
		}
		if _, err := w.c.Update(w.t.Context(), ds, ""); err != nil {
			w.t.Fatal(err)
		}
	case "turn":
		for range times(args) {
			w.turn()
		}
		return w.show()
	case "until-still":
		return w.untilStill()
	case "broken":
		w.broken[args[0]] = true
	case "slow":
		w.slow[args[0]] = func() {}
	case "fetched":
		wake := w.slow[args[0]]
		delete(w.slow, args[0])
		wake()
	case "crashing":
		w.broken[args[0]], w.crashing[args[0]] = true, true
	case "annotate":
		ds := w.set()
		for _, a := range args {
			k, v, _ := strings.Cut(a, "=")
			if ds.Annotations[kube.RolloutPrefix+k] = v; v == "" {
				delete(ds.Annotations, kube.RolloutPrefix+k)
			}
		}
		if _, err := w.c.Update(w.t.Context(), ds, ""); err != nil {
			w.t.Fatal(err)
		}
	case "stage":
		c := kube.FindCondition(w.set().Status.Conditions, kube.RolloutCondition)
		if c == nil {
			return "none"
		}
		return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
	case "dark", "back":
		w.setDark(args[0], cmd == "dark")
	case "fail":
		w.end(args[0], append(args[1:], string(corev1.PodFailed))[0])
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "show":
		return w.show()
	case "revisions":
		return w.revisions()
	case "rollouts":
		return strings.Join(slices.DeleteFunc(w.events.Take(), func(e string) bool { return !strings.Contains(e, " Rollout") }), "\n")
	case "events":
		return strings.Join(w.events.Take(), "\n")
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	w.settle()
	return ""
}

func times(args []string) int {
	if len(args) == 0 {
		return 1
	}
	n, _ := strconv.Atoi(args[0])
	return n
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

func (w *world) configure(ds *appsv1.DaemonSet, args []string) {
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "image":
			ds.Spec.Template.Spec.Containers[0].Image = v
		case "unavailable":
			ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.Parse(v))
		case "surge":
			ds.Spec.UpdateStrategy.RollingUpdate.MaxSurge = ptr.To(intstr.Parse(v))
		case "strategy":
			ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.DaemonSetUpdateStrategyType(v)}
		case "minready":
			ds.Spec.MinReadySeconds = int32(n)
		case "history":
			ds.Spec.RevisionHistoryLimit = ptr.To(int32(n))
		case "selector":
			key, value, _ := strings.Cut(v, ":")
			ds.Spec.Template.Spec.NodeSelector = map[string]string{key: value}
		default:
			w.t.Fatalf("no setting %q", k)
		}
	}
}

// turn lets the scheduler and all live kubelets act once: pods are bound, become ready, or are gone.
func (w *world) turn() {
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		n, ok := control.Get[*corev1.Node](w.c, kube.Node, "", target(p))
		switch {
		case !ok || control.NodeDark(n) && p.Spec.NodeName != "":
			continue
		case p.DeletionTimestamp != nil:
			w.c.Remove(kube.Pod, p.Namespace, p.Name)
			continue
		}
		p = p.DeepCopy()
		p.Spec.NodeName = n.Name
		if !control.PodFinished(p) && !control.PodReady(p) && !w.broken[p.Spec.Containers[0].Image] {
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		}
		if w.crashing[p.Spec.Containers[0].Image] {
			p.Status.Phase = corev1.PodRunning
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		}
		w.c.Put(p)
	}
	w.settle()
}

// setDark does to node and pods what the node controller does.
func (w *world) setDark(name string, dark bool) {
	n, _ := control.Get[*corev1.Node](w.c, kube.Node, "", name)
	n = n.DeepCopy()
	n.Spec.Taints, n.Status.Conditions = nil, nil
	ready := corev1.ConditionTrue
	if dark {
		ready = corev1.ConditionFalse
		n.Spec.Taints = []corev1.Taint{{Key: kube.TaintUnreachable, Effect: corev1.TaintEffectNoSchedule}, {Key: kube.TaintUnreachable, Effect: corev1.TaintEffectNoExecute}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: kube.DarkCondition, Status: corev1.ConditionTrue}}
	}
	w.c.Put(n)
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		if p.Spec.NodeName == name && len(p.Status.Conditions) > 0 {
			p = p.DeepCopy()
			p.Status.Conditions[0].Status = ready
			w.c.Put(p)
		}
	}
}

// end makes the pod on the node one that has ended.
func (w *world) end(node, phase string) {
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		if p.Spec.NodeName == node {
			p = p.DeepCopy()
			p.Status.Phase, p.Status.Conditions = corev1.PodPhase(phase), nil
			w.c.Put(p)
		}
	}
}

// show prints the pods of each node, and the status's counts.
func (w *world) show() string {
	by := map[string][]string{}
	var order []string
	for _, n := range w.c.List(kube.Node, "") {
		order = append(order, n.GetName())
	}
	for _, o := range w.c.Stored(kube.Pod, "") {
		p := o.(*corev1.Pod)
		what := p.Spec.Containers[0].Image
		switch {
		case p.DeletionTimestamp != nil:
			what += " going"
		case control.PodFinished(p):
			what += " " + strings.ToLower(string(p.Status.Phase))
		case p.Spec.NodeName == "":
			what += " unbound"
		case !control.PodReady(p):
			what += " unready"
		}
		if len(by[target(p)]) == 0 && !contains(order, target(p)) {
			order = append(order, target(p))
		}
		by[target(p)] = append(by[target(p)], what)
	}
	var parts []string
	for _, n := range order {
		parts = append(parts, n+": "+strings.Join(append(by[n], "")[:max(1, len(by[n]))], ", "))
	}
	s := w.set().Status
	return fmt.Sprintf("%s | want %d, have %d, updated %d, ready %d, available %d, misplaced %d", strings.Join(parts, "; "),
		s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.UpdatedNumberScheduled, s.NumberReady, s.NumberAvailable, s.NumberMisscheduled)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

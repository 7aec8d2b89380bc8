package deployment

import (
	"fmt"
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
	"petrel.dev/petrel/hub/control/replicaset"
	"petrel.dev/petrel/internal/kube"
)

// The scripts are timelines of rollouts. Commands:
//
//	nodes a b            nodes that are there
//	deploy key=value...  creates the Deployment: image replicas surge unavailable strategy deadline history
//	set key=value...     edits it: the same keys, and paused
//	turn [n]             scheduler and live kubelets act once (or n times), and shows
//	until-still          turns until nothing changes, showing each turn
//	settle               the same, showing the end alone: where the way depends on which of equal pods goes first
//	annotate key=value   sets petrel.dev/rollout-KEY, or removes it when the value is empty
//	stage                the conditions Rollout and Progressing
//	crashing v2          containers of that image do not start
//	slow a               the node has no image ahead until "fetched a"
//	broken v2            pods of that image never become ready
//	dark a, back a       the node's session ends (and its pods become not ready), or is there again
//	wait 10m             time passes
//	show                 one line for each ReplicaSet with pods, and one for the Deployment
//	events               the Events since the last time
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := newWorld(t)
		controltest.Script(t, path, w.command)
	})
}

func (w *world) command(cmd string, args []string) string {
	switch cmd {
	case "nodes":
		for _, n := range args {
			w.c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		}
	case "deploy":
		d := web(1, "v1")
		w.configure(d, args)
		if _, err := w.c.Create(w.t.Context(), d); err != nil {
			w.t.Fatal(err)
		}
		w.settle()
	case "set":
		w.edit(func(d *appsv1.Deployment) { w.configure(d, args) })
	case "turn":
		n := 1
		if len(args) > 0 {
			n, _ = strconv.Atoi(args[0])
		}
		for range n {
			w.turn()
		}
		return w.show()
	case "until-still", "settle":
		var b strings.Builder
		last := w.show()
		for range 50 {
			w.turn()
			now := w.show()
			if now == last {
				if cmd == "settle" {
					return now
				}
				return b.String()
			}
			last = now
			b.WriteString(now + "\n")
		}
		w.t.Fatal("it never becomes still")
	case "annotate":
		w.edit(func(d *appsv1.Deployment) {
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			for _, a := range args {
				k, v, _ := strings.Cut(a, "=")
				if d.Annotations[kube.RolloutPrefix+k] = v; v == "" {
					delete(d.Annotations, kube.RolloutPrefix+k)
				}
			}
		})
	case "stage":
		var out []string
		d := w.deployment()
		for _, t := range []appsv1.DeploymentConditionType{kube.RolloutCondition, appsv1.DeploymentProgressing} {
			if c := kube.FindCondition(d.Status.Conditions, t); c != nil {
				out = append(out, fmt.Sprintf("%s=%s %s: %s", t, c.Status, c.Reason, c.Message))
			}
		}
		return strings.Join(out, "\n")
	case "slow":
		w.slow[args[0]] = func() {}
	case "fetched":
		wake := w.slow[args[0]]
		delete(w.slow, args[0])
		wake()
		w.settle()
	case "crashing":
		w.broken[args[0]], w.crashing[args[0]] = true, true
	case "broken":
		w.broken[args[0]] = true
	case "dark":
		w.setDark(args[0], true)
	case "back":
		w.setDark(args[0], false)
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
		synctest.Wait()
	case "show":
		return w.show()
	case "events":
		return strings.Join(w.events.Take(), "\n")
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	return ""
}

func (w *world) configure(d *appsv1.Deployment, args []string) {
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		n := func() int32 {
			i, err := strconv.Atoi(v)
			if err != nil {
				w.t.Fatal(err)
			}
			return int32(i)
		}
		switch k {
		case "image":
			d.Spec.Template.Spec.Containers[0].Image = v
		case "replicas":
			d.Spec.Replicas = ptr.To(n())
		case "surge":
			d.Spec.Strategy.RollingUpdate.MaxSurge = ptr.To(intstr.Parse(v))
		case "unavailable":
			d.Spec.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.Parse(v))
		case "strategy":
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.DeploymentStrategyType(v)}
		case "deadline":
			d.Spec.ProgressDeadlineSeconds = ptr.To(n())
		case "history":
			d.Spec.RevisionHistoryLimit = ptr.To(n())
		case "paused":
			d.Spec.Paused = v == "true"
		default:
			w.t.Fatalf("no setting %q", k)
		}
	}
}

// setDark does to node and pods what the node controller does.
func (w *world) setDark(name string, dark bool) {
	status, ready := corev1.ConditionFalse, corev1.ConditionTrue
	if dark {
		status, ready = ready, status
	}
	w.c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: kube.DarkCondition, Status: status}}}})
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		if p.Spec.NodeName == name && len(p.Status.Conditions) > 0 {
			p = p.DeepCopy()
			p.Status.Conditions[0].Status = ready
			p.Status.Conditions[0].LastTransitionTime = metav1.Now()
			w.c.Put(p)
		}
	}
	w.settle()
}

// show prints for each image that has pods "image wanted: available+unavailable[+dark], revision".
func (w *world) show() string {
	var parts []string
	rss := control.List[*appsv1.ReplicaSet](w.c, kube.ReplicaSet, "")
	for image := 1; image < 10; image++ {
		for _, rs := range rss {
			name := rs.Spec.Template.Spec.Containers[0].Image
			if name != fmt.Sprintf("v%d", image) {
				continue
			}
			var ready, unready, dark, going int
			for _, o := range w.c.Stored(kube.Pod, "") {
				p := o.(*corev1.Pod)
				switch {
				case !control.OwnedBy(p, rs):
				case p.DeletionTimestamp != nil:
					going++
				case control.PodDark(w.c, p):
					dark++
				case control.PodReady(p):
					ready++
				default:
					unready++
				}
			}
			if *rs.Spec.Replicas == 0 && ready+unready+dark+going == 0 {
				continue
			}
			s := fmt.Sprintf("%s %d:", name, *rs.Spec.Replicas)
			for _, c := range []struct {
				n    int
				what string
			}{{ready, "ready"}, {unready, "unready"}, {dark, "dark"}, {going, "going"}} {
				if c.n > 0 {
					s += fmt.Sprintf(" %d %s", c.n, c.what)
				}
			}
			if n := rs.Annotations[replicaset.DeferredAnnotation]; n != "" {
				s += " (deferred " + n + ")"
			}
			parts = append(parts, s)
		}
	}
	available := "Unavailable"
	if c := condition(&w.deployment().Status, appsv1.DeploymentAvailable); c != nil && c.Status == corev1.ConditionTrue {
		available = "Available"
	}
	return strings.Join(parts, ", ") + " | " + available + ", Progressing " + w.progressing()
}

package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// The scripts are timelines of a node's life. Commands:
//
//	join a                 a Node with a session, which has reported nothing yet
//	says a Ready=True ...  the node's own conditions arrive
//	down a, up a           its session ends, is there again
//	pod a x key=value...   a running pod x on node a: tolerates=30s (unreachable), autonomy=..., gate=... (met), (in "any": key=v1:NoExecute)
//	gate x False           the condition of pod x's readiness gate
//	annotate a autonomy=…  the Node's autonomy
//	taint a key:effect     a taint of the user's, untaint a key
//	cordon a, uncordon a
//	delete a               the Node
//	restart                the hub starts again, with no session
//	wait 30s
//	show                   nodes, then pods
//	events
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := &world{t: t, c: controltest.New(t)}
		w.start()
		controltest.Script(t, path, w.command)
		w.stop()
	})
}

type world struct {
	t      *testing.T
	c      *controltest.Client
	s      *sessions
	events controltest.Events
	stop   func()
}

// start runs a controller that knows of no session, as after a start of the hub.
func (w *world) start() {
	w.s = newSessions()
	ctl, err := New(Config{Client: w.c, Events: &w.events, Presence: w.s, PodCIDR: netip.MustParsePrefix("10.42.0.0/16")})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { _ = ctl.Run(ctx); close(done) }()
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (w *world) edit(node string, f func(*corev1.Node)) {
	n := getNode(w.c, node).DeepCopy()
	f(n)
	w.c.Put(n)
}

func (w *world) command(cmd string, args []string) string {
	switch cmd {
	case "join":
		w.c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: args[0]}})
		w.s.set(args[0], true)
	case "says":
		w.edit(args[0], func(n *corev1.Node) {
			var conds []corev1.NodeCondition
			for _, a := range args[1:] {
				k, v, _ := strings.Cut(a, "=")
				conds = append(conds, corev1.NodeCondition{Type: corev1.NodeConditionType(k), Status: corev1.ConditionStatus(v)})
			}
			for _, c := range n.Status.Conditions { // the intake keeps what the node did not name
				if !strings.Contains(strings.Join(args, " "), string(c.Type)+"=") {
					conds = append(conds, c)
				}
			}
			n.Status.Conditions = conds
		})
	case "down", "up":
		w.s.set(args[0], cmd == "up")
	case "pod":
		w.c.Put(w.pod(args))
	case "gate":
		p := control.List[*corev1.Pod](w.c, kube.Pod, "")[slices.IndexFunc(control.List[*corev1.Pod](w.c, kube.Pod, ""), func(p *corev1.Pod) bool { return p.Name == args[0] })].DeepCopy()
		kube.FindCondition(p.Status.Conditions, p.Spec.ReadinessGates[0].ConditionType).Status = corev1.ConditionStatus(args[1])
		w.c.Put(p)
	case "annotate":
		w.edit(args[0], func(n *corev1.Node) {
			_, v, _ := strings.Cut(args[1], "=")
			metav1.SetMetaDataAnnotation(&n.ObjectMeta, kube.AutonomyAnnotation, v)
		})
	case "taint":
		w.edit(args[0], func(n *corev1.Node) {
			k, effect, _ := strings.Cut(args[1], ":")
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: k, Effect: corev1.TaintEffect(effect)})
		})
	case "untaint":
		w.edit(args[0], func(n *corev1.Node) {
			var keep []corev1.Taint
			for _, t := range n.Spec.Taints {
				if t.Key != args[1] {
					keep = append(keep, t)
				}
			}
			n.Spec.Taints = keep
		})
	case "cordon", "uncordon":
		w.edit(args[0], func(n *corev1.Node) { n.Spec.Unschedulable = cmd == "cordon" })
	case "delete":
		w.c.Remove(kube.Node, "", args[0])
	case "restart":
		w.stop()
		w.start()
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "show":
		synctest.Wait()
		return w.show()
	case "writes":
		synctest.Wait()
		return strings.Join(w.c.Writes(), "\n")
	case "events":
		synctest.Wait()
		// How often the same event is recorded in a row depends on how changes are bunched; the recorder counts it and writes one Event.
		return strings.Join(slices.Compact(w.events.Take()), "\n")
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	synctest.Wait()
	return ""
}

func (w *world) pod(args []string) *corev1.Pod {
	p := podOn(args[0], args[1])
	for _, a := range args[2:] {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "tolerates":
			tol := corev1.Toleration{Key: kube.TaintUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
			if v != "forever" {
				d, err := time.ParseDuration(v)
				if err != nil {
					w.t.Fatal(err)
				}
				s := int64(d.Seconds())
				tol.TolerationSeconds = &s
			}
			p.Spec.Tolerations = append(p.Spec.Tolerations, tol)
		case "gate":
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: corev1.PodConditionType(v)}}
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(v), Status: corev1.ConditionTrue})
		case "autonomy":
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, kube.AutonomyAnnotation, v)
		default:
			w.t.Fatalf("no setting %q", k)
		}
	}
	return p
}

func (w *world) show() string {
	var b strings.Builder
	for _, n := range control.List[*corev1.Node](w.c, kube.Node, "") {
		fmt.Fprintf(&b, "node %s %s", n.Name, strings.TrimSuffix(n.Spec.PodCIDR, "/24"))
		for _, c := range n.Status.Conditions {
			fmt.Fprintf(&b, " %s=%s", strings.TrimPrefix(string(c.Type), "petrel.dev/"), c.Status)
		}
		for _, t := range n.Spec.Taints {
			fmt.Fprintf(&b, " %s:%s", strings.TrimPrefix(t.Key, "node.kubernetes.io/"), t.Effect)
		}
		b.WriteString("\n")
	}
	for _, p := range control.List[*corev1.Pod](w.c, kube.Pod, "") {
		fmt.Fprintf(&b, "pod %s on %s ready=%s", p.Name, p.Spec.NodeName, strconv.FormatBool(control.PodReady(p)))
		if p.DeletionTimestamp != nil {
			b.WriteString(" terminating")
		}
		b.WriteString("\n")
	}
	return b.String()
}

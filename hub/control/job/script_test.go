package job

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// The scripts are timelines of Jobs. Commands:
//
//	job key=value...       creates the Job x: completions parallelism indexed backoff perindex maxfailed deadline suspend restart
//	                       replace managedby policy success (see configure)
//	set key=value...       edits it
//	run                    the nodes start all pods that are not bound yet
//	succeed [n|#i]         n running pods (all), or that of index i, end well
//	fail [code] [n|#i]     they end with that exit code
//	restarts n             each running pod has that many restarts
//	disrupt [n|#i]         they get the condition DisruptionTarget, and are deleted
//	delete [n|#i]          they are deleted, and their nodes need their grace for it
//	cancel                 pods without a node are deleted
//	gone [code]            nodes report that deleted pods have ended, with that exit code (137)
//	wait 10s               time passes
//	restart                the hub stops and starts again
//	orphan [n|#i]          running pods lose their owner
//	relabel [n|#i]         running pods lose their labels
//	remove                 the Job is deleted in the background
//	show                   the Job's status, and its pods
//	events                 the Events since the last time, without those about pods
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := newWorld(t, controltest.New(t))
		w.start()
		controltest.Script(t, path, w.command)
		w.stop()
	})
}

// world is a hub with its Job x, whose nodes are the script.
type world struct {
	t      *testing.T
	c      cluster
	events *controltest.Events
	stop   func()
	// binding returns the write that binds a pod to the node n1.
	binding func(p *corev1.Pod) control.Write
}

func newWorld(t *testing.T, c cluster) *world {
	return &world{t: t, c: c, events: &controltest.Events{}, stop: func() {}, binding: func(p *corev1.Pod) control.Write {
		bound := p.DeepCopy()
		bound.Spec.NodeName = "n1"
		return control.Write{Object: bound, Old: p, Subresource: "binding"}
	}}
}

// cluster is the API, and what tests do beside it.
type cluster interface {
	control.Client
	Remove(gvk kube.GVK, namespace, name string)
	Stored(gvk kube.GVK, namespace string) []kube.Object
}

func (w *world) start() {
	ctl := New(Config{Client: w.c, Events: w.events})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = ctl.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	w.settle()
}

// settle lets the controller do all that it does without further time to wait for.
func (w *world) settle() {
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

func (w *world) command(cmd string, args []string) string {
	switch cmd {
	case "job":
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}}
		j.Spec = batchv1.JobSpec{
			Parallelism: ptr.To(int32(1)), Completions: ptr.To(int32(1)), BackoffLimit: ptr.To(int32(6)),
			ManualSelector: ptr.To(true), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"job": "x"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"job": "x"}},
				Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
		}
		w.configure(j, args)
		if _, err := w.c.Create(w.t.Context(), j); err != nil {
			w.t.Fatal(err)
		}
	case "set":
		j := w.job().DeepCopy()
		w.configure(j, args)
		if _, err := w.c.Update(w.t.Context(), j, ""); err != nil {
			w.t.Fatal(err)
		}
	case "run":
		for _, p := range w.pods() {
			if p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
				if err := w.c.Commit(w.t.Context(), []control.Write{w.binding(p)}); err != nil {
					w.t.Fatal(err)
				}
				p.Status.Phase = corev1.PodRunning
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
				w.report(p)
			}
		}
	case "succeed":
		w.end(0, args)
	case "fail":
		code := 1
		if len(args) > 0 && !strings.HasPrefix(args[0], "#") {
			code, _ = strconv.Atoi(args[0])
			args = args[1:]
		}
		w.end(code, args)
	case "restarts":
		n, _ := strconv.Atoi(args[0])
		for _, p := range w.running(nil) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: int32(n)}}
			w.report(p)
		}
	case "disrupt", "delete":
		for _, p := range w.running(args) {
			if cmd == "disrupt" {
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
				w.report(p)
			}
			if err := w.c.Delete(w.t.Context(), kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}
	case "cancel":
		for _, p := range w.pods() {
			if p.Spec.NodeName == "" {
				if err := w.c.Delete(w.t.Context(), kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{}); err != nil {
					w.t.Fatal(err)
				}
			}
		}
	case "gone":
		w.gone(args)
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "restart":
		w.stop()
		w.start()
	case "orphan":
		w.edit(args, func(p *corev1.Pod) { p.OwnerReferences = nil })
	case "relabel":
		w.edit(args, func(p *corev1.Pod) { p.Labels = nil })
	case "remove":
		w.c.Remove(kube.Job, "default", "x")
	case "show":
		return w.show()
	case "events":
		return strings.Join(slices.DeleteFunc(w.events.Take(), func(e string) bool { return strings.Contains(e, " pod: ") }), "\n")
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	w.settle()
	return ""
}

// configure understands policy=Action:codes (FailJob:3), policy=Ignore:disrupted, and success=indexes[/count].
func (w *world) configure(j *batchv1.Job, args []string) {
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(v)
		number := ptr.To(int32(n))
		switch k {
		case "completions":
			if j.Spec.Completions = number; v == "any" {
				j.Spec.Completions = nil
			}
		case "parallelism":
			j.Spec.Parallelism = number
		case "indexed":
			j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
		case "backoff":
			j.Spec.BackoffLimit = number
		case "perindex":
			j.Spec.BackoffLimitPerIndex, j.Spec.BackoffLimit = number, ptr.To(int32(1<<31-1))
		case "maxfailed":
			j.Spec.MaxFailedIndexes = number
		case "deadline":
			j.Spec.ActiveDeadlineSeconds = ptr.To(int64(n))
		case "suspend":
			j.Spec.Suspend = ptr.To(v == "true")
		case "restart":
			j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicy(v)
		case "replace":
			j.Spec.PodReplacementPolicy = ptr.To(batchv1.PodReplacementPolicy(v))
		case "managedby":
			j.Spec.ManagedBy = ptr.To(v)
		case "policy":
			w.addPolicy(j, v)
		case "success":
			indexes, count, has := strings.Cut(v, "/")
			rule := batchv1.SuccessPolicyRule{}
			if indexes != "" {
				rule.SucceededIndexes = &indexes
			}
			if has {
				n, _ := strconv.Atoi(count)
				rule.SucceededCount = ptr.To(int32(n))
			}
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{rule}}
		default:
			w.t.Fatalf("no setting %q", k)
		}
	}
}

func (w *world) addPolicy(j *batchv1.Job, v string) {
	action, on, _ := strings.Cut(v, ":")
	rule := batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyAction(action)}
	if code, err := strconv.Atoi(on); err == nil {
		rule.OnExitCodes = &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{int32(code)}}
	} else {
		rule.OnPodConditions = []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
	}
	if j.Spec.PodFailurePolicy == nil {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{}
	}
	j.Spec.PodFailurePolicy.Rules = append(j.Spec.PodFailurePolicy.Rules, rule)
	j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
}

// end ends running pods with an exit code.
func (w *world) end(code int, args []string) {
	for _, p := range w.running(args) {
		w.report(ended(p, code))
	}
}

func ended(p *corev1.Pod, code int) *corev1.Pod {
	p.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		p.Status.Phase = corev1.PodFailed
	}
	p.Status.Conditions = append(kube.RemoveCondition(p.Status.Conditions, corev1.PodReady),
		corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()})
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(code), FinishedAt: metav1.Now()}}}}
	return p
}

func (w *world) edit(args []string, change func(*corev1.Pod)) {
	for _, p := range w.running(args) {
		change(p)
		if _, err := w.c.Update(w.t.Context(), p, ""); err != nil {
			w.t.Fatal(err)
		}
	}
}

// report writes a pod's status as its node does, whatever else has changed meanwhile.
func (w *world) report(p *corev1.Pod) {
	p.ResourceVersion = ""
	if _, err := w.c.Update(w.t.Context(), p, "status"); err != nil {
		w.t.Fatal(err)
	}
}

// gone does what the dispatcher does when a node reports that nothing is left of a deleted pod.
func (w *world) gone(args []string) {
	code := 137
	if len(args) > 0 {
		code, _ = strconv.Atoi(args[0])
	}
	for _, p := range w.pods() {
		if p.DeletionTimestamp == nil || p.Spec.NodeName == "" {
			continue
		}
		if !control.PodFinished(p) {
			w.report(ended(p, code))
		}
		if err := w.c.Delete(w.t.Context(), kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// running returns copies of the pods that run and are not being deleted: n of them, or that of an index ("#2").
func (w *world) running(args []string) []*corev1.Pod {
	var out []*corev1.Pod
	most := 1 << 30
	index := ""
	if len(args) > 0 {
		index = strings.TrimPrefix(args[0], "#")
		if n, err := strconv.Atoi(args[0]); err == nil {
			most, index = n, ""
		}
	}
	for _, p := range w.pods() {
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil && len(out) < most &&
			(index == "" || p.Annotations[batchv1.JobCompletionIndexAnnotation] == index) {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, o := range w.c.Stored(kube.Pod, "default") {
		out = append(out, o.DeepCopyObject().(*corev1.Pod))
	}
	return out
}

func (w *world) job() *batchv1.Job {
	j, ok := control.Get[*batchv1.Job](w.c, kube.Job, "default", "x")
	if !ok {
		w.t.Fatal("no Job")
	}
	return j
}

// show prints the Job's counters and conditions, and how many pods there are of each kind: * is one with the finalizer.
func (w *world) show() string {
	var b strings.Builder
	if j, ok := control.Get[*batchv1.Job](w.c, kube.Job, "default", "x"); ok {
		s := j.Status
		fmt.Fprintf(&b, "active %d ready %d terminating %d succeeded %d failed %d", s.Active, ptr.Deref(s.Ready, 0), ptr.Deref(s.Terminating, 0), s.Succeeded, s.Failed)
		if s.CompletedIndexes != "" {
			fmt.Fprintf(&b, " done=%s", s.CompletedIndexes)
		}
		if s.FailedIndexes != nil {
			fmt.Fprintf(&b, " lost=%s", *s.FailedIndexes)
		}
		b.WriteString(" |")
		for _, c := range s.Conditions {
			name := string(c.Type)
			if c.Status != corev1.ConditionTrue {
				name = "!" + name
			}
			fmt.Fprintf(&b, " %s:%s", name, c.Reason)
		}
	} else {
		b.WriteString("no Job")
	}
	b.WriteString(" | ")
	n := map[string]int{}
	for _, p := range w.pods() {
		what := string(p.Status.Phase)
		if p.DeletionTimestamp != nil {
			what += "-deleted"
		}
		if i := p.Annotations[batchv1.JobCompletionIndexAnnotation]; i != "" {
			what = "#" + i + " " + what
		}
		if f := p.Annotations[batchv1.JobIndexFailureCountAnnotation]; f != "" && f != "0" {
			what += " after " + f
		}
		if f := p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation]; f != "" {
			what += " ignored " + f
		}
		if len(p.OwnerReferences) == 0 {
			what += " free"
		}
		if tracked(p) {
			what += "*"
		}
		n[what]++
	}
	var parts []string
	for what, n := range n {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.SortFunc(parts, func(a, b string) int {
		_, x, _ := strings.Cut(a, " ")
		_, y, _ := strings.Cut(b, " ")
		return strings.Compare(x, y)
	})
	b.WriteString(strings.Join(parts, ", "))
	return b.String()
}

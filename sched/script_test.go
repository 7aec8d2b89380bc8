package sched_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

var update = flag.Bool("update", false, "write what the scripts print into them")

// TestScripts plays testdata/*.txt. Lines that begin with "> " are commands, what follows one is what it must print:
//
//	> node NAME [cpu=4] [mem=8Gi] [pods=110] [labels=k=v,…] [taints=k=v:Effect,…] [arch=arm64] [os=linux] [cordoned] [RESOURCE=N]
//	> pod NAME on=NODE …     a pod that is there already
//	> schedule NAME …        asks where it would go
//	> bind NAME … [count=3]  asks and believes the answer; with a count for NAME-0, NAME-1, …
//	> remove pod|node NAME
//	> preempt NAME …         asks who would have to go for it
//	> nominate NAME … to=NODE  promises it room there; without a node it takes the promise back
//	> budget NAME allowed=N [labels=k=v,…]   of disruptions
//	> namespace NAME [labels=k=v,…]
//	> image NAME ARCH…
//	> located IMAGE NODE…    these nodes have it
//	> link NODE QUALITY
//
// Pods take [ns=default] [cpu=1] [mem=1Gi] [labels=k=v,…] [owner=NAME] [ports=80,443] [image=X] [for=ARCH,…] [leaving]
// [preempted] [priority=N] [started=MINUTE] [RESOURCE=N], and at the end of the line {…}, which is more of the PodSpec in YAML's flow style.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &player{t: t, snap: sched.NewSnapshot(), pods: map[string]types.UID{}}
			var out []string
			skipping := false
			for _, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
				command, isCommand := strings.CutPrefix(line, "> ")
				switch {
				case isCommand:
					out = append(out, line)
					if got := p.play(command); got != "" {
						out = append(out, got)
					}
					skipping = true
				case line == "" || strings.HasPrefix(line, "#"):
					out = append(out, line)
					skipping = false
				case !skipping:
					t.Fatalf("%s: output without a command: %s", file, line)
				}
			}
			got := strings.Join(out, "\n") + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s: got\n%s", file, got)
			}
		})
	}
}

type player struct {
	t       *testing.T
	snap    *sched.Snapshot
	pods    map[string]types.UID
	budgets []sched.Budget
}

func (p *player) play(command string) string {
	command, spec, _ := strings.Cut(command, "{")
	fields := strings.Fields(command)
	verb, args, opts := fields[0], []string{}, map[string]string{}
	for _, f := range fields[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			opts[k] = v
		} else {
			args = append(args, f)
		}
	}
	if spec != "" {
		spec = "{" + spec
	}
	switch verb {
	case "node":
		p.snap.SetNode(p.node(args, opts))
	case "pod":
		pod := p.pod(args, opts, spec)
		pod.Spec.NodeName = opts["on"]
		p.snap.SetPod(sched.NewPod(pod))
	case "schedule":
		return show(p.snap.Schedule(sched.NewPod(p.pod(args, opts, spec))))
	case "bind":
		return p.bind(args, opts, spec)
	case "preempt":
		return p.preempt(sched.NewPod(p.pod(args, opts, spec)))
	case "nominate":
		p.snap.Nominate(sched.NewPod(p.pod(args, opts, spec)), opts["to"])
	case "budget":
		allowed, _ := strconv.Atoi(opts["allowed"])
		selector := labels.SelectorFromSet(pairs(opts["labels"]))
		p.budgets = append(p.budgets, sched.Budget{Allowed: int32(allowed), Charges: func(pod *corev1.Pod) bool { return selector.Matches(labels.Set(pod.Labels)) }})
	case "namespace":
		p.snap.SetNamespace(args[0], pairs(opts["labels"]))
	case "image":
		p.snap.SetImage(args[0], args[1:]...)
	case "located":
		for _, node := range args[1:] {
			p.snap.SetImageOn(args[0], node, true)
		}
	case "link":
		quality, _ := strconv.Atoi(args[1])
		p.snap.SetLink(args[0], quality)
	case "remove":
		if args[0] == "node" {
			p.snap.RemoveNode(args[1])
		} else {
			p.snap.RemovePod(p.pods[args[1]])
		}
	default:
		p.t.Fatalf("unknown command %s", verb)
	}
	return ""
}

func (p *player) preempt(pod *sched.Pod) string {
	if d := p.snap.Schedule(pod); d.Fits() {
		return "fits on " + d.Node
	}
	got := p.snap.Preempt(pod, p.budgets)
	if got.Node == "" {
		return got.Message()
	}
	var names []string
	for _, v := range got.Victims {
		names = append(names, v.Object.Name)
	}
	text := got.Node + " without " + strings.Join(names, ", ")
	if got.Broken > 0 {
		text += fmt.Sprintf(", against %d budgets", got.Broken)
	}
	return text
}

func (p *player) bind(args []string, opts map[string]string, spec string) string {
	names := []string{args[0]}
	if n, _ := strconv.Atoi(opts["count"]); n > 0 {
		names = nil
		for i := range n {
			names = append(names, fmt.Sprintf("%s-%d", args[0], i))
		}
	}
	var out []string
	for _, name := range names {
		pod := p.pod([]string{name}, opts, spec)
		d := p.snap.Schedule(sched.NewPod(pod))
		out = append(out, show(d))
		if d.Fits() {
			pod = pod.DeepCopy()
			pod.Spec.NodeName = d.Node
			p.snap.SetPod(sched.NewPod(pod))
		}
	}
	return strings.Join(out, "\n")
}

func show(d sched.Decision) string {
	if d.Fits() {
		return d.Node
	}
	return d.Message()
}

func pairs(text string) map[string]string {
	m := map[string]string{}
	for _, kv := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}

// amounts makes a resource list of cpu, mem and everything with a slash in its name.
func amounts(opts map[string]string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for k, v := range opts {
		switch {
		case k == "mem":
			list[corev1.ResourceMemory] = resource.MustParse(v)
		case k == "cpu" || k == "pods" || k == "ephemeral-storage" || strings.Contains(k, "/"):
			list[corev1.ResourceName(k)] = resource.MustParse(v)
		}
	}
	return list
}

func (p *player) node(args []string, opts map[string]string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: args[0], Labels: pairs(opts["labels"])}}
	n.Labels[corev1.LabelHostname] = args[0]
	if os := opts["os"]; os != "" {
		n.Labels[corev1.LabelOSStable] = os
	}
	if arch := opts["arch"]; arch != "" {
		n.Labels[corev1.LabelArchStable] = arch
	}
	for k, v := range map[string]string{"cpu": "4", "mem": "8Gi", "pods": "110", "ephemeral-storage": "16Gi"} {
		if _, set := opts[k]; !set {
			opts[k] = v
		}
	}
	n.Status.Allocatable = amounts(opts)
	n.Spec.Unschedulable = len(args) > 1 && args[1] == "cordoned"
	for _, taint := range strings.FieldsFunc(opts["taints"], func(r rune) bool { return r == ',' }) {
		kv, effect, _ := strings.Cut(taint, ":")
		k, v, _ := strings.Cut(kv, "=")
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: k, Value: v, Effect: corev1.TaintEffect(effect)})
	}
	return n
}

func (p *player) pod(args []string, opts map[string]string, spec string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: args[0], Namespace: "default", UID: types.UID("uid-" + args[0]), Labels: pairs(opts["labels"])}}
	p.pods[args[0]] = pod.UID
	if ns := opts["ns"]; ns != "" {
		pod.Namespace = ns
	}
	if archs := opts["for"]; archs != "" {
		pod.Annotations = map[string]string{kube.ArchitecturesAnnotation: archs}
	}
	if owner := opts["owner"]; owner != "" {
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: &yes}}
	}
	if len(args) > 1 { // leaving or preempted
		pod.DeletionTimestamp = &metav1.Time{}
		if args[1] == "preempted" {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
		}
	}
	if n, err := strconv.Atoi(opts["priority"]); err == nil {
		priority := int32(n)
		pod.Spec.Priority = &priority
	}
	if minute, err := strconv.Atoi(opts["started"]); err == nil {
		pod.Status.StartTime = &metav1.Time{Time: time.Unix(int64(minute)*60, 0)}
	}
	c := corev1.Container{Name: "main", Image: opts["image"], Resources: corev1.ResourceRequirements{Requests: amounts(opts)}}
	delete(c.Resources.Requests, corev1.ResourcePods)
	for _, port := range strings.FieldsFunc(opts["ports"], func(r rune) bool { return r == ',' }) {
		n, _ := strconv.Atoi(port)
		c.Ports = append(c.Ports, corev1.ContainerPort{HostPort: int32(n), ContainerPort: int32(n)})
	}
	if spec != "" {
		if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
			p.t.Fatalf("%s: %v", spec, err)
		}
	}
	pod.Spec.Containers = append([]corev1.Container{c}, pod.Spec.Containers...)
	return pod
}

// Package agree_test asks hub, scheduler and node the same question about the same pods.
package agree_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"pgregory.net/rapid"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/sched"
)

// TestPodResources checks that a pod that the scheduler places on an empty node is let in by the node, and no other is; and the
// class that the node reports is the one that the hub holds the pod's status against (hub/resource TestQOSAsUpstream).
func TestPodResources(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		pod := drawPod(rt)
		node := drawNode(rt, pod)
		snapshot := sched.NewSnapshot()
		snapshot.SetNode(node)
		placed := snapshot.Schedule(sched.NewPod(pod)).Fits()
		status := onNode(t, node, pod)
		letIn := !strings.HasPrefix(status.Reason, "OutOf")
		if placed != letIn {
			rt.Fatalf("the scheduler places it: %v; the node lets it in: %v (%s %s)", placed, letIn, status.Reason, status.Message)
		}
		if want := qos.ComputePodQOS(pod); status.QOSClass != want {
			rt.Fatalf("the node reports %s, the hub wants %s", status.QOSClass, want)
		}
		seen[string(status.QOSClass)]++
		if placed {
			seen["placed"]++
		} else {
			seen["refused"]++
		}
	})
	for _, outcome := range []string{"placed", "refused", "Guaranteed", "Burstable", "BestEffort"} {
		if seen[outcome] == 0 {
			t.Errorf("no pod was drawn that is %s: %v", outcome, seen)
		}
	}
}

var (
	amounts = rapid.SampledFrom([]string{"", "", "0", "100m", "1", "2"})
	names   = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
)

func drawList(t *rapid.T, label string) corev1.ResourceList {
	var out corev1.ResourceList
	for _, name := range names {
		text := amounts.Draw(t, label+" "+string(name))
		if text == "" {
			continue
		}
		if out == nil {
			out = corev1.ResourceList{}
		}
		q := resource.MustParse(text)
		if name != corev1.ResourceCPU {
			q = *resource.NewQuantity(q.MilliValue()<<20, resource.BinarySI)
		}
		out[name] = q
	}
	return out
}

func drawResources(t *rapid.T, label string) corev1.ResourceRequirements {
	switch rapid.IntRange(0, 3).Draw(t, label+" kind") {
	case 0:
		return corev1.ResourceRequirements{}
	case 1:
		both := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("64Mi")}
		return corev1.ResourceRequirements{Requests: both, Limits: both}
	}
	return corev1.ResourceRequirements{Requests: drawList(t, label+" requests"), Limits: drawList(t, label+" limits")}
}

func drawPod(t *rapid.T) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "p"}}
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	for i := range rapid.IntRange(1, 3).Draw(t, "containers") {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Image: "app:1", Resources: drawResources(t, "container")})
	}
	if rapid.Bool().Draw(t, "init") {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "init", Image: "app:1", Resources: drawResources(t, "init")})
	}
	if rapid.Bool().Draw(t, "sidecar") {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "side", Image: "app:1", Resources: drawResources(t, "sidecar"),
			RestartPolicy: new(corev1.ContainerRestartPolicyAlways)})
	}
	if rapid.IntRange(0, 3).Draw(t, "pod level") == 0 {
		pod.Spec.Resources = new(drawResources(t, "pod"))
	}
	if rapid.IntRange(0, 3).Draw(t, "overhead") == 0 {
		pod.Spec.Overhead = drawList(t, "overhead")
	}
	return pod
}

// drawNode makes a node that has just enough for the pod, or a little more or less of something.
func drawNode(t *rapid.T, pod *corev1.Pod) *corev1.Node {
	room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10")}
	need := kube.PodRequests(pod)
	for _, name := range names {
		q := need[name]
		milli := q.MilliValue()
		if name != corev1.ResourceCPU {
			milli = q.Value() * 1000
		}
		step := int64(1000) // of memory and disk: one byte
		if name == corev1.ResourceCPU {
			step = 1
		}
		room[name] = *resource.NewMilliQuantity(max(milli+step*rapid.SampledFrom([]int64{0, 0, 0, 1, -1}).Draw(t, "spare "+string(name)), 0), resource.BinarySI)
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge", UID: "edge"}}
	n.Status.Capacity, n.Status.Allocatable = room, room
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return n
}

type noNetwork struct{}

func (noNetwork) Attach(context.Context, string) (podrun.Attachment, error) {
	return podrun.Attachment{Netns: "/ns", IPs: []string{"10.42.0.9"}}, nil
}
func (noNetwork) Detach(context.Context, string) error { return nil }

// onNode hands the pod to a node with this much room and returns the status that it reports last.
func onNode(t *testing.T, node *corev1.Node, pod *corev1.Pod) (last corev1.PodStatus) {
	synctest.Test(t, func(t *testing.T) {
		fake, dir := runtimetest.NewFake(t.TempDir(), "app:1"), t.TempDir()
		reports := make(chan corev1.PodStatus, 1000)
		manager := podrun.NewManager(podrun.Config{Runtime: fake, Network: noNetwork{}, Volumes: &volume.Mounter{Dir: dir}, Dir: dir, NodeName: node.Name,
			NodeIPs: func() []string { return []string{"192.0.2.1"} }, Allocatable: node.Status.Allocatable, DNS: podspec.DNS{Domain: "cluster.local"},
			Report: func(o wire.Object) error {
				var r wire.PodReport
				var st corev1.PodStatus
				if o.Kind == wire.KindPodStatus && json.Unmarshal(o.Data, &r) == nil && json.Unmarshal(r.Status, &st) == nil {
					reports <- st
				}
				return nil
			}, Forget: func(wire.ID) error { return nil }, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- manager.Run(ctx) }()
		synctest.Wait()
		data, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		set := desired.Decode([]wire.Object{{ID: wire.ID{Kind: wire.KindPod, UID: "p"}, Version: 1, Namespace: "default", Name: "p", Data: data}}, nil, slog.New(slog.DiscardHandler))
		manager.Apply(set, true)
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		<-done
		close(reports)
		for st := range reports {
			last = st
		}
	})
	return last
}

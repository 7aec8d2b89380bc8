package horizontalpodautoscaler

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// TestScripts runs the timelines in testdata: a Deployment "web" of which pods are ready at once, on one node, and an autoscaler.
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := newWorld(t)
		controltest.Script(t, path, w.run)
	})
}

// world is the Scales and the Metrics of a controller that runs.
type world struct {
	t        *testing.T
	client   *controltest.Client
	events   *controltest.Events
	replicas int32
	selector string
	used     map[string]string // CPU by pod name; "" under "*" is that of the others
	served   map[string]string // body by group and path
	asked    []string          // what servers were asked for
	measured int               // how often nodes were asked
	refuse   error             // of Rescale
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, client: controltest.New(t), events: &controltest.Events{}, selector: "app=web", used: map[string]string{"*": "0"}, served: map[string]string{}}
	w.client.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := New(Config{Client: w.client, Events: w.events, Scales: w, Metrics: w, Log: slog.New(slog.DiscardHandler)})
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) Scale(_ context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (*autoscalingv1.Scale, error) {
	if ref.Name != "web" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: "apps", Resource: "deployments"}, ref.Name)
	}
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: ref.Name}}
	s.Spec.Replicas, s.Status.Replicas, s.Status.Selector = w.replicas, w.replicas, w.selector
	return s, nil
}

func (w *world) Rescale(_ context.Context, _ autoscalingv2.CrossVersionObjectReference, scale *autoscalingv1.Scale) error {
	if w.refuse != nil {
		return w.refuse
	}
	w.size(scale.Spec.Replicas)
	return nil
}

// size makes the pods of the Deployment that many; new ones become ready at once.
func (w *world) size(n int32) {
	for i := w.replicas; i < n; i++ {
		now := metav1.Now()
		w.client.Put(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web-%d", i), UID: types.UID(fmt.Sprint("u", i)), Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
			}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}},
		})
	}
	for i := n; i < w.replicas; i++ {
		w.client.Remove(kube.Pod, "default", fmt.Sprintf("web-%d", i))
	}
	w.replicas = n
}

func (w *world) Pods(_ context.Context, pods []*corev1.Pod) (out []*metrics.PodMetrics) {
	w.measured++
	for _, p := range pods {
		used, ok := w.used[p.Name]
		if !ok {
			used = w.used["*"]
		}
		if used == "none" {
			continue
		}
		out = append(out, &metrics.PodMetrics{ObjectMeta: p.ObjectMeta, Timestamp: metav1.Now(), Window: metav1.Duration{Duration: 10 * time.Second},
			Containers: []metrics.ContainerMetrics{{Name: "main", Usage: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(used)}}}})
	}
	return out
}

func (w *world) Get(_ context.Context, gv schema.GroupVersion, path string, query url.Values) ([]byte, bool, error) {
	body, ok := w.served[gv.Group]
	if !ok {
		return nil, false, nil
	}
	w.asked = append(w.asked, gv.String()+"/"+path+"?"+query.Encode())
	if body == "broken" {
		return nil, true, apierrors.NewServiceUnavailable("the server is broken")
	}
	return []byte(body), true, nil
}

func (w *world) Plural(kind schema.GroupKind) (schema.GroupResource, bool) {
	if kind.Kind == "Ingress" {
		return schema.GroupResource{Group: kind.Group, Resource: "ingresses"}, true
	}
	return schema.GroupResource{}, false
}

func (w *world) run(command string, args []string) string {
	rest := strings.Join(args, " ")
	switch command {
	case "autoscaler": // NAME spec in one line of YAML
		name, spec, _ := strings.Cut(rest, " ")
		a := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("u-" + name)}}
		a.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}
		if err := yaml.Unmarshal([]byte(spec), &a.Spec); err != nil {
			w.t.Fatal(err)
		}
		if old, ok := control.Get[*autoscalingv2.HorizontalPodAutoscaler](w.client, kube.HorizontalPodAutoscaler, "default", name); ok {
			a.Status = old.Status
		}
		w.client.Put(a)
	case "annotate": // NAME value
		old, _ := control.Get[*autoscalingv2.HorizontalPodAutoscaler](w.client, kube.HorizontalPodAutoscaler, "default", args[0])
		a := old.DeepCopy()
		a.Annotations = map[string]string{kube.SyncPeriodAnnotation: args[1]}
		w.client.Put(a)
	case "delete":
		w.client.Remove(kube.HorizontalPodAutoscaler, "default", args[0])
	case "size":
		n, _ := strconv.Atoi(args[0])
		w.size(int32(n))
	case "selector":
		w.selector = rest
	case "uses": // POD CPU; "none" is no measurement
		w.used[args[0]] = args[1]
	case "phase": // POD PHASE
		p, _ := control.Get[*corev1.Pod](w.client, kube.Pod, "default", args[0])
		p = p.DeepCopy()
		p.Status.Phase = corev1.PodPhase(args[1])
		w.client.Put(p)
	case "serve": // GROUP body
		w.served[args[0]] = strings.Join(args[1:], " ")
	case "metered":
		w.client.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{kube.MeteredLabel: "true"}}})
	case "refuse":
		w.refuse = apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "web", fmt.Errorf("%s", rest))
	case "pass":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	default:
		w.t.Fatalf("unknown command %q", command)
	}
	synctest.Wait()
	return w.happened()
}

// happened is the state of all autoscalers when it is asked for, the Events since the last time, and what nodes and servers were asked.
func (w *world) happened() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d replicas, nodes asked %d times\n", w.replicas, w.measured)
	w.measured = 0
	for _, a := range control.List[*autoscalingv2.HorizontalPodAutoscaler](w.client, kube.HorizontalPodAutoscaler, "") {
		fmt.Fprintf(&out, "%s wants %d of %d, measures %s\n", a.Name, a.Status.DesiredReplicas, a.Status.CurrentReplicas, current(a))
		for _, c := range a.Status.Conditions {
			fmt.Fprintf(&out, "  %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	for _, e := range w.events.Take() {
		out.WriteString("event " + e + "\n")
	}
	for _, a := range w.asked {
		out.WriteString("asked " + a + "\n")
	}
	w.asked = nil
	return out.String()
}

func current(a *autoscalingv2.HorizontalPodAutoscaler) string {
	var out []string
	for _, m := range a.Status.CurrentMetrics {
		var v autoscalingv2.MetricValueStatus
		switch m.Type {
		case autoscalingv2.ResourceMetricSourceType:
			v = m.Resource.Current
		case autoscalingv2.ContainerResourceMetricSourceType:
			v = m.ContainerResource.Current
		case autoscalingv2.PodsMetricSourceType:
			v = m.Pods.Current
		case autoscalingv2.ObjectMetricSourceType:
			v = m.Object.Current
		case autoscalingv2.ExternalMetricSourceType:
			v = m.External.Current
		}
		s := "nothing"
		if v.AverageValue != nil {
			s = v.AverageValue.String() + " each"
		}
		if v.Value != nil {
			s = v.Value.String()
		}
		if v.AverageUtilization != nil {
			s += fmt.Sprintf(" (%d%%)", *v.AverageUtilization)
		}
		out = append(out, s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// TestIdle writes nothing, asks nobody and keeps no timer while there is no autoscaler.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.size(3)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if w.measured != 0 || len(w.client.Writes()) != 0 {
			t.Errorf("nodes were asked %d times, %v was written", w.measured, w.client.Writes())
		}
	})
}

// TestStatusIsWrittenSeldom changes values all the time, without another outcome: they are written once a minute.
func TestStatusIsWrittenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.size(2)
		w.run("autoscaler", []string{"web", "{minReplicas: 1, maxReplicas: 4, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}"})
		time.Sleep(time.Minute)
		w.client.Writes() // those until now
		for i := range 40 {
			w.used["*"] = fmt.Sprintf("%dm", 47+i%5)
			time.Sleep(syncPeriod)
		}
		synctest.Wait()
		if n := len(w.client.Writes()); n < 8 || n > 11 { // a minute is up to five syncs of 15 s
			t.Errorf("%d writes in ten minutes", n)
		}
	})
}

package hollow

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What one size of fleet is given to do.
type workload struct{ nodes, completions, replicas int }

// Every kind of controller of pods works on a small fleet to its end, and then the hub is at rest: it writes nothing.
func TestSmallWorkloads(t *testing.T) {
	workloads(t, workload{nodes: 20, completions: 60, replicas: 20})
}

// The sizes of docs/performance.md, or as many nodes as one asks for: PETREL_HOLLOW=nodes.
func TestWorkloads(t *testing.T) {
	if os.Getenv("PETREL_BENCH") == "" {
		t.Skip("reports figures only; make bench runs it")
	}
	sizes := []int{100, 300}
	if n, err := strconv.Atoi(os.Getenv("PETREL_HOLLOW")); err == nil {
		sizes = []int{n}
	}
	for _, n := range sizes {
		t.Run(strconv.Itoa(n), func(t *testing.T) { workloads(t, workload{nodes: n, completions: 2000, replicas: 500}) })
	}
}

func workloads(t *testing.T, w workload) {
	h := startHub(t)
	s := stage{t: t, hub: h, nodes: w.nodes}
	s.begin()
	f := startFleet(t, h, w.nodes)
	eventually(t, workLimit, "all nodes are connected", func() bool { return f.all(connected) })
	s.end("joined")
	f.daemonSet(&s)
	f.job(&s, w.completions)
	f.statefulSet(&s, w.replicas)
	f.rest(&s)
}

// workLimit bounds a step that fails.
const workLimit = 7 * time.Minute

// daemonSet has a pod on each node, and then another version of it.
func (f *fleet) daemonSet(s *stage) {
	t, api := f.t, f.hub.client.AppsV1().DaemonSets("default")
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Spec: appsv1.DaemonSetSpec{
		Selector: selector("agent"), Template: template("agent", "1"),
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: percent("10%")}},
	}}
	_, err := api.Create(t.Context(), d, metav1.CreateOptions{})
	must(t, err)
	done := func(updated int) func() bool {
		return func() bool {
			d, err := api.Get(t.Context(), "agent", metav1.GetOptions{})
			return err == nil && int(d.Status.NumberAvailable) == len(f.nodes) && int(d.Status.UpdatedNumberScheduled) >= updated && d.Status.ObservedGeneration == d.Generation
		}
	}
	eventually(t, workLimit, "a pod on each node", done(len(f.nodes)))
	s.endPods("DaemonSet", len(f.nodes))
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": template("agent", "2")}})
	must(t, err)
	_, err = api.Patch(t.Context(), "agent", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
	eventually(t, workLimit, "the rollout", done(len(f.nodes)))
	s.endPods("its rollout, a tenth at a time", len(f.nodes))
}

// job runs to its completions, a quarter of them at a time.
func (f *fleet) job(s *stage, completions int) {
	t, api := f.t, f.hub.client.BatchV1().Jobs("default")
	n, parallel := int32(completions), int32(completions/4)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Spec: batchv1.JobSpec{Completions: &n, Parallelism: &parallel, Template: template("work", "1")}}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	_, err := api.Create(t.Context(), j, metav1.CreateOptions{})
	must(t, err)
	eventually(t, workLimit, "the Job is complete", func() bool {
		j, err := api.Get(t.Context(), "work", metav1.GetOptions{})
		if err != nil || j.Status.CompletionTime == nil {
			return false
		}
		if j.Status.Succeeded != n || j.Status.Failed != 0 {
			t.Fatalf("the Job is complete with %d of %d, %d failed", j.Status.Succeeded, n, j.Status.Failed)
		}
		return true
	})
	s.endPods(fmt.Sprintf("Job of %d completions", completions), completions)
	background := metav1.DeletePropagationBackground
	must(t, api.Delete(t.Context(), "work", metav1.DeleteOptions{PropagationPolicy: &background}))
	f.noPods("work")
	s.endPods("it and its pods deleted", completions)
}

// statefulSet starts its replicas at once, with a headless Service that names them.
func (f *fleet) statefulSet(s *stage, replicas int) {
	t, api := f.t, f.hub.client.AppsV1().StatefulSets("default")
	_, err := f.hub.client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": "db"}, Ports: []corev1.ServicePort{{Port: 5432}}}}, metav1.CreateOptions{})
	must(t, err)
	n := int32(replicas)
	_, err = api.Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &n, ServiceName: "db", Selector: selector("db"), Template: template("db", "1"), PodManagementPolicy: appsv1.ParallelPodManagement,
	}}, metav1.CreateOptions{})
	must(t, err)
	eventually(t, workLimit, "all replicas are ready", func() bool {
		x, err := api.Get(t.Context(), "db", metav1.GetOptions{})
		return err == nil && x.Status.ReadyReplicas == n && x.Status.AvailableReplicas == n
	})
	s.endPods(fmt.Sprintf("StatefulSet of %d, Parallel", replicas), replicas)
	scale, err := api.GetScale(t.Context(), "db", metav1.GetOptions{})
	must(t, err)
	scale.Spec.Replicas = 0
	_, err = api.UpdateScale(t.Context(), "db", scale, metav1.UpdateOptions{})
	must(t, err)
	f.noPods("db")
	s.endPods("scaled to nothing", replicas)
}

// rest waits until nothing is left to do, and checks that nothing is written from then on.
func (f *fleet) rest(s *stage) {
	quiet := 5 * time.Second
	if os.Getenv("PETREL_BENCH") != "" {
		quiet = time.Minute
	}
	eventually(f.t, workLimit, "what was done is written, Events too, which may take ten seconds", func() bool {
		before := f.hub.use().written
		time.Sleep(11 * time.Second)
		return f.hub.use().written == before
	})
	s.begin()
	time.Sleep(quiet)
	before := s.from.written
	s.end(fmt.Sprintf("%v at rest", quiet))
	if n := s.from.written - before; n > 0 {
		f.t.Errorf("the hub has written %d bytes at rest", n)
	}
}

// noPods waits until no pod of an app is left.
func (f *fleet) noPods(app string) {
	eventually(f.t, workLimit, "no pod of "+app+" is left", func() bool {
		l, err := f.hub.client.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{LabelSelector: "app=" + app, Limit: 1})
		return err == nil && len(l.Items) == 0 || apierrors.IsNotFound(err)
	})
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func percent(s string) *intstr.IntOrString { v := intstr.FromString(s); return &v }

func template(app, version string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example/" + app + ":" + version}}}}
}

// endPods is end, with what each pod has cost.
func (s *stage) endPods(what string, pods int) {
	ms := float64((s.hub.use().cpu - s.from.cpu).Microseconds()) / 1000 / float64(pods)
	s.end(fmt.Sprintf("%s: %.2f ms a pod", what, ms))
}

package apiserver_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// contentTypes are how client-go programs are set up: by default, and asking for protobuf both ways.
func contentTypes(h *hub) map[string]*rest.Config {
	protobuf := rest.CopyConfig(h.config)
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	only := rest.CopyConfig(protobuf)
	only.AcceptContentTypes = "application/vnd.kubernetes.protobuf"
	both := rest.CopyConfig(protobuf)
	both.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return map[string]*rest.Config{"default": h.config, "protobuf": both, "protobuf only": only}
}

func TestTypedClient(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for name, cfg := range contentTypes(h) {
		t.Run(name, func(t *testing.T) {
			cs, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			c := cs.AppsV1().Deployments("default")
			d := &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "web-"},
				Spec: appsv1.DeploymentSpec{
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
						Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
					},
				},
			}
			d, err = c.Create(ctx, d, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if *d.Spec.Replicas != 1 || d.UID == "" || d.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
				t.Errorf("created %+v", d)
			}
			stale := d.DeepCopy()
			d.Labels = map[string]string{"x": "y"}
			if d, err = c.Update(ctx, d, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err = c.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				t.Errorf("a stale update: %v", err)
			}
			d.Status.Replicas = 3
			if d, err = c.UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil || d.Status.Replicas != 3 {
				t.Errorf("status: %v", err)
			}
			s, err := c.GetScale(ctx, d.Name, metav1.GetOptions{})
			if err != nil || s.Spec.Replicas != 1 || s.Status.Replicas != 3 {
				t.Fatalf("scale: %+v %v", s, err)
			}
			s.Spec.Replicas = 5
			if s, err = c.UpdateScale(ctx, d.Name, s, metav1.UpdateOptions{}); err != nil || s.Spec.Replicas != 5 {
				t.Errorf("scale: %+v %v", s, err)
			}
			if d, err = c.Patch(ctx, d.Name, types.MergePatchType, []byte(`{"spec":{"paused":true}}`), metav1.PatchOptions{}); err != nil || !d.Spec.Paused || *d.Spec.Replicas != 5 {
				t.Errorf("patch: %+v %v", d, err)
			}
			l, err := c.List(ctx, metav1.ListOptions{LabelSelector: "x=y"})
			if err != nil || len(l.Items) != 1 || l.Items[0].Name != d.Name {
				t.Errorf("list: %v %v", l, err)
			}
			if err := c.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "x=y"}); err != nil {
				t.Error(err)
			}
			if _, err = c.Get(ctx, d.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("after its deletion: %v", err)
			}
		})
	}
}

// An informer sees what is there, and what happens then: with client-go's streaming list, too.
func TestInformer(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	c := h.client().CoreV1().ConfigMaps("default")
	make1 := func(name string) {
		if _, err := c.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		make1(fmt.Sprint("before-", i))
	}
	seen := make(chan string, 100)
	f := informers.NewSharedInformerFactory(h.client(), 0)
	inf := f.Core().V1().ConfigMaps().Informer()
	if _, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { seen <- "add " + o.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, o any) { seen <- "update " + o.(*corev1.ConfigMap).Name },
		DeleteFunc: func(o any) { seen <- "delete " + o.(*corev1.ConfigMap).Name },
	}); err != nil {
		t.Fatal(err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	for range 5 {
		<-seen
	}
	make1("later")
	if _, err := c.Patch(t.Context(), "later", types.StrategicMergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), "later", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"add later", "update later", "delete later"} {
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("saw %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("did not see %q", want)
		}
	}
}

// Clients without types: what helm, k9s and garbage collectors are made of.
func TestUntypedClients(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	gvr := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	dyn, err := dynamic.NewForConfig(h.config)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "labels": map[string]any{"l": "m"}}, "data": map[string]any{"k": "v"},
	}}
	if _, err := dyn.Resource(gvr).Namespace("default").Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l, err := dyn.Resource(gvr).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(l.Items) != 1 || l.Items[0].GetLabels()["l"] != "m" {
		t.Errorf("%v %v", l, err)
	}
	meta, err := metadata.NewForConfig(h.config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := meta.Resource(gvr).Namespace("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || m.Labels["l"] != "m" {
		t.Errorf("%v %v", m, err)
	}
	ml, err := meta.Resource(gvr).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(ml.Items) != 1 || ml.Items[0].Name != "a" {
		t.Errorf("%v %v", ml, err)
	}
	w, err := meta.Resource(gvr).Watch(t.Context(), metav1.ListOptions{ResourceVersion: ml.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := dyn.Resource(gvr).Namespace("default").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-w.ResultChan():
		if p, ok := e.Object.(*metav1.PartialObjectMetadata); !ok || p.Name != "a" {
			t.Errorf("%+v", e)
		}
	case <-time.After(time.Minute):
		t.Error("the deletion was not seen")
	}
}

// Of several candidates one leads at a time; when it steps down another follows. All of them try at once, so that most
// lose the race to create, or to take over, the Lease.
func TestLeaderElection(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	ctx, stop := context.WithCancel(t.Context())
	const candidates = 4
	var leading atomic.Int32
	turns := make(chan string, candidates)
	var wg sync.WaitGroup
	for i := range candidates {
		name := fmt.Sprint("candidate-", i)
		own, stepDown := context.WithCancel(ctx)
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: "crown"},
				Client: h.client().CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: name}},
			LeaseDuration: time.Minute, RenewDeadline: 50 * time.Second, RetryPeriod: 20 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					if n := leading.Add(1); n != 1 {
						t.Errorf("%d lead", n)
					}
					turns <- name
					leading.Add(-1)
					stepDown()
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { e.Run(own) })
	}
	led := map[string]bool{}
	for range candidates {
		led[<-turns] = true
	}
	stop()
	wg.Wait()
	if len(led) != candidates {
		t.Errorf("only %v led", led)
	}
}

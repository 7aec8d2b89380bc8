package control_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// webIn is a Deployment of two pods and a Service in a namespace of their own.
func webIn(namespace string) []kube.Object {
	l := map[string]string{"app": "web"}
	two := int32(2)
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	return []kube.Object{
		&appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
			Spec:       appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: l}, Template: template}},
		&corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
			Spec:       corev1.ServiceSpec{Selector: l, Ports: []corev1.ServicePort{{Port: 80}}}},
	}
}

// served is "" when the Deployment in the namespace is complete and its Service has endpoints.
func served(c control.Client, namespace string) string {
	d, ok := control.Get[*appsv1.Deployment](c, kube.Deployment, namespace, "web")
	if !ok || d.Status.AvailableReplicas != 2 || d.Status.ObservedGeneration != d.Generation {
		return fmt.Sprintf("deployment in %s: %+v", namespace, d)
	}
	if _, ok := c.Get(kube.ServiceAccount, namespace, "default"); !ok {
		return "no ServiceAccount in " + namespace
	}
	for _, o := range c.List(kube.Endpoints, namespace) {
		//lint:ignore SA1019 deprecated, and served for as long as Kubernetes serves them
		if e := o.(*corev1.Endpoints); e.Name == "web" && len(e.Subsets) == 1 && len(e.Subsets[0].Addresses) == 2 {
			return ""
		}
	}
	return "no endpoints in " + namespace
}

// TestAPanicIsOneKeys makes each loop panic for whatever has "poison" in its key, while the same happens without it next door:
// that goes on, the panics are counted, and once the fault is gone the poisoned come right by themselves.
func TestAPanicIsOneKeys(t *testing.T) {
	for _, c := range []struct {
		site string
		// broken is what the fault keeps from happening to the poisoned object; "" is the Deployment being served.
		broken string
	}{
		{site: "control/deployment"},
		{site: "control/replicaset"},
		{site: "control/endpoints"},
		{site: "control/serviceaccount"},
		{site: "control/namespace", broken: "gone"},
		{site: "control/gc", broken: "collected"},
		{site: "control/node", broken: "network"},
		{site: "objects/cache", broken: "unseen"},
	} {
		t.Run(strings.ReplaceAll(c.site, "/", " "), func(t *testing.T) {
			remove := contain.Inject(func(site, key string) {
				if site == c.site && strings.Contains(key, "poison") {
					panic("injected into " + site)
				}
			})
			removed := false
			defer func() {
				if !removed {
					remove()
				}
			}()
			before := contain.Counts()[c.site]
			client := hub(t)
			for _, ns := range []string{"good", "poison"} {
				create(t, client, namespaceNamed(ns))
				create(t, client, &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: ns}})
				for _, obj := range webIn(ns) {
					create(t, client, obj)
				}
			}
			soon(t, func() string { return served(client, "good") })
			done := func(ns string) string { return served(client, ns) }
			switch c.broken {
			case "gone":
				done = func(ns string) string {
					if _, ok := client.Get(kube.Namespace, "", ns); ok {
						return ns + " is there"
					}
					return ""
				}
				for _, ns := range []string{"good", "poison"} {
					if err := client.Delete(t.Context(), kube.Namespace, "", ns, metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			case "collected":
				soon(t, func() string { return served(client, "poison") })
				done = func(ns string) string {
					if n := len(client.List(kube.ReplicaSet, ns)); n > 0 {
						return fmt.Sprintf("%d ReplicaSets in %s", n, ns)
					}
					return ""
				}
				for _, ns := range []string{"good", "poison"} {
					if err := client.Delete(t.Context(), kube.Deployment, ns, "web", metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			case "network":
				done = func(ns string) string {
					if n, ok := control.Get[*corev1.Node](client, kube.Node, "", ns); !ok || n.Spec.PodCIDR == "" {
						return "node " + ns + " has no pod network"
					}
					return ""
				}
			}
			soon(t, func() string { return done("good") })
			soon(t, func() string { // the good one may have been first
				if contain.Counts()[c.site] == before {
					return "the fault was never met"
				}
				return ""
			})
			if c.broken != "unseen" && done("poison") == "" {
				t.Error("the fault kept nothing from happening")
			}
			remove()
			removed = true
			if c.broken != "unseen" { // what a cache has not seen it sees with the object's next change only
				soon(t, func() string { return done("poison") })
			}
		})
	}
}

// TestAPanicIsOnePods covers the scheduler, for one pod.
func TestAPanicIsOnePods(t *testing.T) {
	var armed atomic.Bool
	armed.Store(true)
	defer contain.Inject(func(site, key string) {
		if armed.Load() && site == "control/schedule" && strings.Contains(key, "poison") {
			panic("injected")
		}
	})()
	c := registrytest.New(t).Client()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = schedule.New(schedule.Config{Client: c}).Run(ctx) })
	defer wg.Wait()
	defer cancel()
	create(t, c, namespaceNamed("ns"))
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	up := create(t, c, n).DeepCopyObject().(*corev1.Node)
	up.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10"), corev1.ResourceCPU: resource.MustParse("1")}
	up.Status.Capacity = up.Status.Allocatable
	if _, err := c.Update(t.Context(), up, "status"); err != nil {
		t.Fatal(err)
	}
	bound := func(name string) string {
		p, ok := control.Get[*corev1.Pod](c, kube.Pod, "ns", name)
		if !ok || p.Spec.NodeName == "" {
			return name + " is not bound"
		}
		return ""
	}
	for _, name := range []string{"poison", "good"} {
		create(t, c, &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	}
	soon(t, func() string { return bound("good") })
	if bound("poison") == "" {
		t.Error("the fault kept nothing from happening")
	}
	armed.Store(false)
	p, _ := control.Get[*corev1.Pod](c, kube.Pod, "ns", "poison")
	p = p.DeepCopy()
	p.Labels = map[string]string{"changed": "yes"}
	if _, err := c.Update(t.Context(), p, ""); err != nil && !apierrors.IsConflict(err) { // another attempt may have come first
		t.Fatal(err)
	}
	soon(t, func() string { return bound("poison") })
}

// TestAPanicInParallelIsTheCallers checks that one in a goroutine of InParallel is seen by what contains the caller.
func TestAPanicInParallelIsTheCallers(t *testing.T) {
	var ran atomic.Int32
	err := contain.Do(nil, "test/parallel", "k", func() error {
		return control.InParallel(100, func(i int) error {
			if i == 50 {
				panic("one of a hundred")
			}
			ran.Add(1)
			return nil
		})
	})
	if err == nil || !strings.Contains(err.Error(), "one of a hundred") || !strings.Contains(err.Error(), "panic_test.go") {
		t.Errorf("got %v", err)
	}
	if n := ran.Load(); n != 99 {
		t.Errorf("%d of the other 99 ran", n)
	}
}

// TestAPanicIsOneEvents covers the recorder, for one event, while it is made ready and while it is written.
func TestAPanicIsOneEvents(t *testing.T) {
	for _, where := range []string{"control/recorder", "control/recorder/write"} {
		t.Run(strings.ReplaceAll(where, "/", " "), func(t *testing.T) {
			defer contain.Inject(func(site, key string) {
				if site == where && (strings.Contains(key, "poison") || key == "batch") {
					panic("injected")
				}
			})()
			c := registrytest.New(t).Client()
			create(t, c, namespaceNamed("ns"))
			rec := control.NewRecorder(c, nil)
			about := func(name string) {
				rec.As("test").Event(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "u"}}, corev1.EventTypeNormal, "Test", "x")
			}
			about("poison")
			about("good")
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { _ = rec.Run(ctx) })
			defer wg.Wait()
			defer cancel()
			soon(t, func() string {
				if n := len(c.List(kube.Event, "ns")); n != 1 {
					return fmt.Sprintf("%d events, want that of the good one", n)
				}
				return ""
			})
			about("later")
			soon(t, func() string {
				if n := len(c.List(kube.Event, "ns")); n != 2 {
					return fmt.Sprintf("%d events, want two", n)
				}
				return ""
			})
		})
	}
}

package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/bootstrap"
	"petrel.dev/petrel/hub/control/daemonset"
	"petrel.dev/petrel/hub/control/deployment"
	"petrel.dev/petrel/hub/control/endpointmirror"
	"petrel.dev/petrel/hub/control/endpoints"
	"petrel.dev/petrel/hub/control/gc"
	"petrel.dev/petrel/hub/control/loadbalancer"
	"petrel.dev/petrel/hub/control/namespace"
	"petrel.dev/petrel/hub/control/node"
	"petrel.dev/petrel/hub/control/podgc"
	"petrel.dev/petrel/hub/control/replicaset"
	"petrel.dev/petrel/hub/control/replicationcontroller"
	"petrel.dev/petrel/hub/control/serviceaccount"
	"petrel.dev/petrel/hub/control/serviceaddress"
	"petrel.dev/petrel/hub/control/statefulset"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// connected is a Presence that has all nodes.
type connected struct{}

func (connected) Presence(string) (bool, time.Time)              { return true, time.Now() }
func (connected) Watch(ctx context.Context, _ func(node string)) { <-ctx.Done() }

type runner interface{ Run(context.Context) error }

// hub runs all controllers on a real registry.
func hub(t testing.TB) control.Client {
	reg := registrytest.New(t)
	c := reg.Client()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	rec := control.NewRecorder(c, nil)
	nodes, err := node.New(node.Config{Log: log, Client: c, Events: rec.As("node-controller"), Presence: connected{}, PodCIDR: netip.MustParsePrefix("10.42.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, r := range []runner{
		rec, nodes,
		deployment.New(deployment.Config{Log: log, Client: c, Events: rec.As("deployment-controller")}),
		daemonset.New(daemonset.Config{Log: log, Client: c, Events: rec.As("daemonset-controller")}),
		statefulset.New(statefulset.Config{Log: log, Client: c, Events: rec.As("statefulset-controller")}),
		replicaset.New(replicaset.Config{Log: log, Client: c, Events: rec.As("replicaset-controller")}),
		serviceaddress.New(serviceaddress.Config{Log: log, Client: c, Events: rec.As("kubernetes-service-cidr-controller"), CIDR: netip.MustParsePrefix(kube.DefaultServiceCIDR)}),
		replicationcontroller.New(replicaset.Config{Log: log, Client: c, Events: rec.As("replication-controller")}),
		endpoints.New(c, log),
		gc.New(gc.Config{Log: log, Client: c, Events: rec.As("garbage-collector-controller"), Kinds: reg.StoredKinds()}),
		namespace.New(namespace.Config{Log: log, Client: c, Kinds: reg.StoredKinds()}),
		podgc.New(podgc.Config{Client: c}),
		serviceaccount.New(serviceaccount.Config{Client: c, CA: []byte("PEM")}),
		bootstrap.New(bootstrap.Config{Client: c, Address: netip.MustParseAddrPort("192.0.2.7:6443"), ServiceIP: netip.MustParseAddr("10.43.0.1"),
			DNSIP: netip.MustParseAddr("10.43.0.10")}),
		endpointmirror.New(c, log),
		loadbalancer.New(c, log),
		runs(func(ctx context.Context) error { kubelet(ctx, c); return nil }),
	} {
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("%T: %v", r, err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

type runs func(context.Context) error

func (f runs) Run(ctx context.Context) error { return f(ctx) }

// kubelet binds each pod, says that it is ready, and lets it go when it is deleted.
func kubelet(ctx context.Context, c control.Client) {
	changes := make(chan *corev1.Pod, 1000)
	c.Subscribe(ctx, func(ch control.Change) {
		if ch.New != nil {
			changes <- ch.New.(*corev1.Pod)
		}
	}, kube.Pod)
	zero := int64(0)
	for ip := 2; ; {
		var p *corev1.Pod
		select {
		case <-ctx.Done():
			return
		case p = <-changes:
		}
		switch {
		case p.Spec.NodeName == "":
			up := p.DeepCopy()
			up.Spec.NodeName = "n1"
			_ = c.Commit(ctx, []control.Write{{Object: up, Old: p, Subresource: "binding"}})
		case p.DeletionTimestamp != nil:
			_ = c.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		case !control.PodReady(p):
			up := p.DeepCopy()
			up.Status.Phase = corev1.PodRunning
			up.Status.PodIP = fmt.Sprintf("10.42.%d.%d", ip/250, ip%250+1)
			up.Status.PodIPs = []corev1.PodIP{{IP: up.Status.PodIP}}
			up.Status.Conditions = append(up.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
			ip++
			_ = c.Commit(ctx, []control.Write{{Object: up, Old: p, Subresource: "status"}})
		}
	}
}

// soon waits for what becomes "" when it is as it should be.
func soon(t testing.TB, what func() string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		s := what()
		if s == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(s)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func create(t testing.TB, c control.Client, obj kube.Object) kube.Object {
	t.Helper()
	got, err := c.Create(t.Context(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func webDeployment(ns string, n int32, image string) *appsv1.Deployment {
	l := map[string]string{"app": "web"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: l},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: image, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}}}}}
}

// The whole way on the real registry: a Deployment rolls out and over, its Service finds the pods, the namespace goes.
func TestControllersOnTheRegistry(t *testing.T) {
	c := hub(t)
	create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	create(t, c, webDeployment("shop", 4, "v1"))
	create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}})

	rolledOut := func(image string, revision string) func() string {
		return func() string {
			d, ok := control.Get[*appsv1.Deployment](c, kube.Deployment, "shop", "web")
			if !ok {
				return "no Deployment"
			}
			if d.Status.UpdatedReplicas != 4 || d.Status.AvailableReplicas != 4 || d.Status.Replicas != 4 || d.Status.ObservedGeneration != d.Generation ||
				d.Annotations["deployment.kubernetes.io/revision"] != revision {
				return fmt.Sprintf("generation %d, %v, status %+v", d.Generation, d.Annotations, d.Status)
			}
			for _, p := range control.List[*corev1.Pod](c, kube.Pod, "shop") {
				if p.Spec.Containers[0].Image != image {
					return "a pod of " + p.Spec.Containers[0].Image
				}
			}
			return ""
		}
	}
	soon(t, rolledOut("v1", "1"))
	d, _ := control.Get[*appsv1.Deployment](c, kube.Deployment, "shop", "web")
	d = d.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Image = "v2"
	if _, err := c.Update(t.Context(), d, ""); err != nil {
		t.Fatal(err)
	}
	soon(t, rolledOut("v2", "2"))
	soon(t, func() string {
		n := 0
		for _, s := range control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "shop") {
			for _, e := range s.Endpoints {
				if *e.Conditions.Ready && *s.Ports[0].Port == 8080 {
					n++
				}
			}
		}
		if n != 4 {
			return fmt.Sprintf("%d ready endpoints, want 4", n)
		}
		return ""
	})
	soon(t, func() string {
		n, _ := control.Get[*corev1.Node](c, kube.Node, "", "n1")
		if n.Spec.PodCIDR != "10.42.0.0/24" {
			return "node has no pod network: " + n.Spec.PodCIDR
		}
		return ""
	})
	soon(t, func() string {
		var reasons []string
		for _, e := range control.List[*corev1.Event](c, kube.Event, "shop") {
			reasons = append(reasons, e.Reason)
		}
		if s := strings.Join(reasons, " "); !strings.Contains(s, "ScalingReplicaSet") || !strings.Contains(s, "SuccessfulCreate") {
			return "events: " + s
		}
		return ""
	})

	if err := c.Delete(t.Context(), kube.Namespace, "", "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soon(t, func() string {
		if ns, ok := control.Get[*corev1.Namespace](c, kube.Namespace, "", "shop"); ok {
			return fmt.Sprintf("namespace is still there: %+v", ns.Status)
		}
		return ""
	})
	for _, k := range builtin.New().All() {
		if k.Namespaced && k.StoredAs == nil {
			if left := c.List(k.GVK, "shop"); len(left) > 0 {
				t.Errorf("%d %s are left", len(left), k.Plural)
			}
		}
	}
	soon(t, func() string {
		for _, ns := range bootstrap.Namespaces {
			if _, ok := c.Get(kube.ServiceAccount, ns, "default"); !ok {
				return "no default ServiceAccount in " + ns
			}
		}
		if s, ok := control.Get[*corev1.Service](c, kube.Service, "default", "kubernetes"); !ok || s.Spec.ClusterIP != "10.43.0.1" {
			return fmt.Sprintf("kubernetes Service: %+v", s)
		}
		return ""
	})
}

// kubectl delete deployment, with each --cascade.
func TestCascadeOnTheRegistry(t *testing.T) {
	c := hub(t)
	create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	for _, tt := range []struct {
		policy metav1.DeletionPropagation
		stay   bool
	}{{metav1.DeletePropagationBackground, false}, {metav1.DeletePropagationForeground, false}, {metav1.DeletePropagationOrphan, true}} {
		ns := strings.ToLower(string(tt.policy))
		create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		create(t, c, webDeployment(ns, 3, "v1"))
		soon(t, func() string {
			d, _ := control.Get[*appsv1.Deployment](c, kube.Deployment, ns, "web")
			if d == nil || d.Status.AvailableReplicas != 3 {
				return ns + ": not available"
			}
			return ""
		})
		if err := c.Delete(t.Context(), kube.Deployment, ns, "web", metav1.DeleteOptions{PropagationPolicy: &tt.policy}); err != nil {
			t.Fatal(err)
		}
		soon(t, func() string {
			if _, ok := c.Get(kube.Deployment, ns, "web"); ok {
				return ns + ": the Deployment is still there"
			}
			rss, pods := control.List[*appsv1.ReplicaSet](c, kube.ReplicaSet, ns), c.List(kube.Pod, ns)
			switch {
			case !tt.stay && len(rss)+len(pods) > 0:
				return fmt.Sprintf("%s: %d ReplicaSets and %d pods are left", ns, len(rss), len(pods))
			case tt.stay && (len(rss) != 1 || len(rss[0].OwnerReferences) != 0 || len(pods) != 3):
				return fmt.Sprintf("%s: %d pods, ReplicaSets %v", ns, len(pods), rss)
			}
			return ""
		})
	}
	// A new Deployment with the same selector adopts what was left behind.
	create(t, c, webDeployment("orphan", 3, "v1"))
	soon(t, func() string {
		d, _ := control.Get[*appsv1.Deployment](c, kube.Deployment, "orphan", "web")
		rss := control.List[*appsv1.ReplicaSet](c, kube.ReplicaSet, "orphan")
		if d == nil || d.Status.AvailableReplicas != 3 || len(rss) != 1 || !metav1.IsControlledBy(rss[0], d) {
			return fmt.Sprintf("not adopted: %v", rss)
		}
		return ""
	})
}

package quota_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// start returns a client whose writes pass the whole chain, with namespace ns and a quota there.
func start(t testing.TB, hard ...string) control.Client {
	t.Helper()
	store, kinds := registrytest.Store(t), builtin.New()
	view := objects.New(objects.Config{Store: store, Kinds: kinds})
	chain, err := admission.New(admission.Config{Objects: view, Ledger: quota.NewLedger(view, kinds.OfResource)})
	if err != nil {
		t.Fatal(err)
	}
	c := registrytest.Start(t, registry.Config{Store: store, Kinds: kinds, Objects: view, Admission: chain}).Client()
	limits := corev1.ResourceList{}
	for i := 0; i < len(hard); i += 2 {
		limits[corev1.ResourceName(hard[i])] = apiresource.MustParse(hard[i+1])
	}
	for _, obj := range []kube.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"}},
		&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: limits}},
	} {
		if _, err := c.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CatchUp(t.Context()); err != nil { // a quota holds from when the hub's cache shows it
		t.Fatal(err)
	}
	return c
}

func pod(name, cpu string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": apiresource.MustParse(cpu)}
	}
	return p
}

// fill creates many pods at once and returns how many were stored.
func fill(t *testing.T, c control.Client, name string) int {
	t.Helper()
	var stored atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			_, err := c.Create(context.Background(), pod(fmt.Sprint(name, i), "100m"))
			switch {
			case err == nil:
				stored.Add(1)
			case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota: q, requested: "):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return int(stored.Load())
}

// Of many who create at once, as many succeed as the quota allows, and as many more as pods were deleted just before.
func TestNeverMoreThanTheLimit(t *testing.T) {
	c := start(t, "pods", "20", "requests.cpu", "1")
	if n := fill(t, c, "a"); n != 10 {
		t.Errorf("%d pods of 100m fit into 1 CPU", n)
	}
	all := func() []kube.Object {
		if err := c.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c.List(kube.Pod, "ns")
	}
	for i, p := range all() {
		if i < 3 {
			if err := c.Delete(t.Context(), kube.Pod, "ns", p.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := fill(t, c, "b"); n != 3 {
		t.Errorf("%d pods fit where three were deleted", n)
	}
	if n := len(all()); n != 10 {
		t.Errorf("%d pods are stored", n)
	}
}

// Refusals have upstream's texts.
func TestRefusals(t *testing.T) {
	c := start(t, "pods", "1", "requests.cpu", "1", "services.nodeports", "1", "count/configmaps", "1")
	want := func(obj kube.Object, text string) {
		t.Helper()
		_, err := c.Create(t.Context(), obj)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != text {
			t.Errorf("error %s\n want %s", got, text)
		}
	}
	want(pod("a", ""), `pods "a" is forbidden: failed quota: q: must specify requests.cpu for: c`)
	want(pod("a", "2"), `pods "a" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1`)
	want(pod("a", "800m"), "")
	want(pod("b", "300m"), `pods "b" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=300m, used: pods=1,requests.cpu=800m, limited: pods=1,requests.cpu=1`)
	want(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"}}, "")
	want(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "n"}},
		`configmaps "n" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1`)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, Name: "a"}, {Port: 81, Name: "b"}}}}
	s, err := c.Create(t.Context(), svc)
	if err != nil {
		t.Fatal(err)
	}
	up := s.DeepCopyObject().(*corev1.Service)
	up.Spec.Type = corev1.ServiceTypeNodePort
	if _, err := c.Update(t.Context(), up, ""); err == nil || err.Error() != `services "s" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1` {
		t.Errorf("update: %v", err)
	}
}

// A pod that is resized is charged for what it takes more, and gives back what it takes less once its node has let go of it.
func TestResize(t *testing.T) {
	c := start(t, "requests.cpu", "1")
	resize := func(p *corev1.Pod, cpu string) (*corev1.Pod, error) {
		next := p.DeepCopy()
		next.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": apiresource.MustParse(cpu)}
		obj, err := c.Update(t.Context(), next, "resize")
		if err != nil {
			return p, err
		}
		return obj.(*corev1.Pod), nil
	}
	obj, err := c.Create(t.Context(), pod("a", "400m"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := resize(obj.(*corev1.Pod), "900m")
	if err != nil || p.Generation != 2 {
		t.Fatalf("generation %d, %v", p.Generation, err)
	}
	const want = `pods "a" is forbidden: exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=900m, limited: requests.cpu=1`
	if _, err := resize(p, "1100m"); err == nil || err.Error() != want {
		t.Errorf("error %v\n want %s", err, want)
	}
	next := p.DeepCopy()
	next.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: "i", ImageID: "i", Resources: &p.Spec.Containers[0].Resources, AllocatedResources: p.Spec.Containers[0].Resources.Requests}}
	if obj, err = c.Update(t.Context(), next, "status"); err != nil {
		t.Fatal(err)
	}
	if p, err = resize(obj.(*corev1.Pod), "100m"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), pod("b", "800m")); err == nil || !strings.Contains(err.Error(), "used: requests.cpu=900m") {
		t.Errorf("the node still has 900m for a: %v", err)
	}
	next = p.DeepCopy()
	next.Status.ContainerStatuses[0].Resources, next.Status.ContainerStatuses[0].AllocatedResources = &p.Spec.Containers[0].Resources, p.Spec.Containers[0].Resources.Requests
	if _, err := c.Update(t.Context(), next, "status"); err != nil {
		t.Fatal(err)
	}
	if err := c.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), pod("b", "800m")); err != nil {
		t.Errorf("a has given back what it had: %v", err)
	}
}

// A write that fails takes nothing, whatever it fails of.
func TestFailedWritesTakeNothing(t *testing.T) {
	c := start(t, "pods", "2")
	if _, err := c.Create(t.Context(), pod("a", "")); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := c.Create(t.Context(), pod("a", "")); !apierrors.IsAlreadyExists(err) {
			t.Errorf("a name that is taken: %v", err)
		}
		bad := pod("b", "")
		bad.Spec.Containers[0].Name = "No Name"
		if _, err := c.Create(t.Context(), bad); !apierrors.IsInvalid(err) {
			t.Errorf("an invalid pod: %v", err)
		}
	}
	if _, err := c.Create(t.Context(), pod("b", "")); err != nil {
		t.Errorf("there was room for one more: %v", err)
	}
}

package admission_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// client returns a registry's client whose writes pass the whole chain.
func client(t *testing.T) control.Client {
	t.Helper()
	store, kinds := registrytest.Store(t), builtin.New()
	view := objects.New(objects.Config{Store: store, Kinds: kinds})
	chain, err := admission.New(admission.Config{Objects: view, Ledger: quota.NewLedger(view, kinds.OfResource)})
	if err != nil {
		t.Fatal(err)
	}
	return registrytest.Start(t, registry.Config{Store: store, Kinds: kinds, Objects: view, Admission: chain}).Client()
}

func mustCreate(t *testing.T, c control.Client, obj kube.Object) kube.Object {
	t.Helper()
	out, err := c.Create(t.Context(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A cluster that has just begun: each object is made at once after what it needs, and each gets what it lacks.
func TestWithRegistry(t *testing.T) {
	c := client(t)
	mustCreate(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	mustCreate(t, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"}})
	pod := mustCreate(t, c, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", GenerateName: "web-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}).(*corev1.Pod)
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.Volumes) != 1 || len(pod.Spec.Tolerations) != 2 || pod.Status.Phase != corev1.PodPending {
		t.Errorf("pod: %+v", pod)
	}

	// Deleting a Service frees its addresses for the very next one.
	for i := range 20 {
		svc := mustCreate(t, c, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("s", i)},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.43.0.77",
				Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
		}).(*corev1.Service)
		if err := c.Delete(t.Context(), kube.Service, "ns", svc.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// Of many who ask for one port at once, one gets it.
func TestOneGetsThePort(t *testing.T) {
	c := client(t)
	mustCreate(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	var mu sync.Mutex
	var wg sync.WaitGroup
	got, refused := 0, 0
	for i := range 8 {
		wg.Go(func() {
			_, err := c.Create(context.Background(), &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("s", i)},
				Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				got++
			case apierrors.IsInvalid(err):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got != 1 || refused != 7 {
		t.Errorf("%d got it, %d were refused", got, refused)
	}
}

package controltest

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Contract checks what loops rely on, for any client: this package's and the registry's both pass it. settle waits until
// the cache has caught up with what was written. Namespace default must exist.
func Contract(t *testing.T, c control.Client, settle func()) {
	rs := contractWrites(t, c, settle)
	pod := contractIndexes(t, c, settle, rs)
	contractDeletions(t, c, settle, rs, pod)
}

// contractWrites checks creates, updates and commits. It returns the ReplicaSet default/web as it was created.
func contractWrites(t *testing.T, c control.Client, settle func()) *appsv1.ReplicaSet {
	t.Helper()
	ctx := t.Context()
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](2),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}},
		Status: appsv1.ReplicaSetStatus{Replicas: 7}}
	made, err := c.Create(ctx, rs)
	if err != nil {
		t.Fatal(err)
	}
	if made.GetUID() == "" || made.GetResourceVersion() == "" || made.GetGeneration() != 1 || made.(*appsv1.ReplicaSet).Status.Replicas != 0 {
		t.Errorf("created: %+v", made)
	}
	if _, err := c.Create(ctx, rs); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}

	status := made.DeepCopyObject().(*appsv1.ReplicaSet)
	status.Status.Replicas = 1
	status.Spec.Replicas = ptr.To[int32](9)
	got, err := c.Update(ctx, status, "status")
	if err != nil {
		t.Fatal(err)
	}
	if r := got.(*appsv1.ReplicaSet); r.Status.Replicas != 1 || *r.Spec.Replicas != 2 || r.Generation != 1 {
		t.Errorf("status update: %+v", r)
	}
	stale := made.DeepCopyObject().(*appsv1.ReplicaSet)
	stale.Spec.Replicas = ptr.To[int32](3)
	if _, err := c.Update(ctx, stale, ""); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	stale.ResourceVersion = got.GetResourceVersion()
	got, err = c.Update(ctx, stale, "")
	if err != nil {
		t.Fatal(err)
	}
	if r := got.(*appsv1.ReplicaSet); r.Generation != 2 || r.Status.Replicas != 1 {
		t.Errorf("spec update: %+v", r)
	}

	if err := c.Commit(ctx, []control.Write{{Object: got, Old: got, Subresource: "status"}}); err != nil {
		t.Errorf("a commit that changes nothing: %v", err)
	}
	if err := c.Commit(ctx, []control.Write{{Object: made, Old: made, Subresource: "status"}}); !apierrors.IsConflict(err) {
		t.Errorf("a commit that changes nothing, on an old revision: %v", err)
	}
	settle()
	if now, _ := c.Get(kube.ReplicaSet, "default", "web"); now.GetResourceVersion() != got.GetResourceVersion() {
		t.Error("a commit that changes nothing has written")
	}
	return made.(*appsv1.ReplicaSet)
}

// contractIndexes checks the indexes and the binding of a pod of made, which it returns.
func contractIndexes(t *testing.T, c control.Client, settle func(), made *appsv1.ReplicaSet) kube.Object {
	t.Helper()
	ctx := t.Context()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "web-",
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(made, kube.ReplicaSet)}},
		Spec: *made.Spec.Template.Spec.DeepCopy()}
	p, err := c.Create(ctx, pod)
	if err != nil {
		t.Fatal(err)
	}
	settle()
	if got := c.Index(kube.Pod, control.OwnerIndex, string(made.GetUID())); len(got) != 1 || got[0].GetName() != p.GetName() {
		t.Errorf("owner index: %v", got)
	}
	bound := p.DeepCopyObject().(*corev1.Pod)
	bound.Spec.NodeName = "n1"
	if err := c.Commit(ctx, []control.Write{{Object: bound, Old: p, Subresource: "binding"}}); err != nil {
		t.Fatalf("binding: %v", err)
	}
	settle()
	if got := c.Index(kube.Pod, control.NodeIndex, "n1"); len(got) != 1 {
		t.Errorf("node index: %v", got)
	}
	if err := c.Commit(ctx, []control.Write{{Object: bound, Old: p, Subresource: "binding"}}); !apierrors.IsConflict(err) {
		t.Errorf("binding on an old revision: %v", err)
	}
	return p
}

// contractDeletions checks grace, preconditions and finalizers with made and its bound pod p, which are gone at the end.
func contractDeletions(t *testing.T, c control.Client, settle func(), made *appsv1.ReplicaSet, p kube.Object) {
	t.Helper()
	ctx := t.Context()
	if err := c.Delete(ctx, kube.Pod, "default", p.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	settle()
	dying, ok := control.Get[*corev1.Pod](c, kube.Pod, "default", p.GetName())
	if !ok || dying.DeletionTimestamp == nil || *dying.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("a bound pod should stay for its grace period: %v", dying)
	}
	if err := c.Delete(ctx, kube.Pod, "default", p.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(made.GetUID())}}); !apierrors.IsConflict(err) {
		t.Errorf("delete with another uid: %v", err)
	}
	if err := c.Delete(ctx, kube.Pod, "default", p.GetName(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, kube.ReplicaSet, "default", "web", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		t.Fatal(err)
	}
	settle()
	if _, ok := c.Get(kube.Pod, "default", p.GetName()); ok {
		t.Error("pod is still there after a deletion without grace")
	}
	last, ok := control.Get[*appsv1.ReplicaSet](c, kube.ReplicaSet, "default", "web")
	if !ok || len(last.Finalizers) != 1 || last.DeletionTimestamp == nil {
		t.Fatalf("foreground deletion should keep the object with a finalizer: %v", last)
	}
	last = last.DeepCopy()
	last.Finalizers = nil
	if _, err := c.Update(ctx, last, ""); err != nil {
		t.Fatal(err)
	}
	settle()
	if _, ok := c.Get(kube.ReplicaSet, "default", "web"); ok {
		t.Error("object is still there after its last finalizer went")
	}
	if err := c.Delete(ctx, kube.ReplicaSet, "default", "web", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete of nothing: %v", err)
	}
	if err := c.Commit(ctx, []control.Write{{Object: last, Old: last, Subresource: "status"}}); !apierrors.IsNotFound(err) {
		t.Errorf("a commit that changes nothing, of nothing: %v", err)
	}
}

package control_test

import (
	"bytes"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/revision"
	"petrel.dev/petrel/internal/kube"
)

// A DaemonSet on the real registry: it rolls over and back, and the API keeps the revisions as the controller has written them.
func TestDaemonSetOnTheRegistry(t *testing.T) {
	c := hub(t)
	n := create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}).DeepCopyObject().(*corev1.Node)
	n.ResourceVersion = ""
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := c.Update(t.Context(), n, "status"); err != nil {
		t.Fatal(err)
	}
	l := map[string]string{"app": "agent"}
	create(t, c, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: l},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}}})
	soon(t, func() string {
		if _, ok := c.Get(kube.DaemonSet, "default", "agent"); !ok {
			return "no DaemonSet"
		}
		return ""
	})
	get := func() *appsv1.DaemonSet {
		ds, ok := control.Get[*appsv1.DaemonSet](c, kube.DaemonSet, "default", "agent")
		if !ok {
			t.Fatal("no DaemonSet")
		}
		return ds.DeepCopy()
	}
	for i, step := range []struct {
		image    string
		revision int64
	}{{"v1", 1}, {"v2", 2}, {"v1", 3}} {
		if i > 0 {
			ds := get()
			ds.Spec.Template.Spec.Containers[0].Image = step.image
			if _, err := c.Update(t.Context(), ds, ""); err != nil {
				t.Fatal(err)
			}
		}
		soon(t, func() string {
			ds := get()
			if s := ds.Status; s.ObservedGeneration != ds.Generation || s.DesiredNumberScheduled != 1 || s.UpdatedNumberScheduled != 1 || s.NumberAvailable != 1 {
				return fmt.Sprintf("generation %d, status %+v", ds.Generation, s)
			}
			pods := control.List[*corev1.Pod](c, kube.Pod, "default")
			if len(pods) != 1 || pods[0].Spec.Containers[0].Image != step.image {
				return fmt.Sprintf("%d pods", len(pods))
			}
			want, err := revision.Data(&ds.Spec.Template)
			if err != nil {
				t.Fatal(err)
			}
			for _, cr := range control.List[*appsv1.ControllerRevision](c, kube.ControllerRevision, "default") {
				if cr.Revision != step.revision {
					continue
				}
				if !bytes.Equal(cr.Data.Raw, want) {
					t.Fatalf("revision %s stores\n%s, want\n%s", cr.Name, cr.Data.Raw, want)
				}
				if h := pods[0].Labels[appsv1.DefaultDaemonSetUniqueLabelKey]; h == "" || h != cr.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] {
					return fmt.Sprintf("pod has revision %q", h)
				}
				return ""
			}
			return fmt.Sprintf("no revision %d", step.revision)
		})
	}
}

// A StatefulSet on the real registry: pods and claims come in order, an update goes from the last pod to the first, and deleting the set takes
// pods and claims with it.
func TestStatefulSetOnTheRegistry(t *testing.T) {
	c := hub(t)
	create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	l := map[string]string{"app": "db"}
	created := create(t, c, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: l}, ServiceName: "db",
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}},
		PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}}}}},
	}}).(*appsv1.StatefulSet)
	for _, image := range []string{"v1", "v2", "v1"} {
		s := created.DeepCopy()
		s.ResourceVersion = ""
		*s.Spec.Replicas = 3
		s.Spec.Template.Spec.Containers[0].Image = image
		if _, err := c.Update(t.Context(), s, ""); err != nil {
			t.Fatal(err)
		}
		soon(t, func() string {
			s, ok := control.Get[*appsv1.StatefulSet](c, kube.StatefulSet, "default", "db")
			if !ok || s.Spec.Template.Spec.Containers[0].Image != image {
				return "no StatefulSet"
			}
			if st := s.Status; st.ObservedGeneration != s.Generation || st.UpdatedReplicas != 3 || st.AvailableReplicas != 3 || st.CurrentRevision != st.UpdateRevision {
				return fmt.Sprintf("generation %d, status %+v", s.Generation, st)
			}
			for _, p := range control.List[*corev1.Pod](c, kube.Pod, "default") {
				if p.Spec.Containers[0].Image != image || p.Labels[appsv1.StatefulSetRevisionLabel] != s.Status.UpdateRevision {
					return fmt.Sprintf("%s has image %s", p.Name, p.Spec.Containers[0].Image)
				}
			}
			for _, p := range control.List[*corev1.Pod](c, kube.Pod, "default") {
				if p.Spec.Hostname != p.Name || p.Spec.Subdomain != s.Spec.ServiceName {
					return fmt.Sprintf("%s is %s.%s", p.Name, p.Spec.Hostname, p.Spec.Subdomain)
				}
			}
			for i := range 3 {
				claim, ok := control.Get[*corev1.PersistentVolumeClaim](c, kube.PersistentVolumeClaim, "default", fmt.Sprintf("data-db-%d", i))
				if !ok || !metav1.IsControlledBy(claim, s) || claim.Labels["app"] != "db" {
					return fmt.Sprintf("claim %d: %+v", i, claim)
				}
			}
			return ""
		})
	}
	if n := len(c.List(kube.ControllerRevision, "default")); n != 2 {
		t.Errorf("%d revisions, want 2: a rollback makes none", n)
	}
	background := metav1.DeletePropagationBackground
	if err := c.Delete(t.Context(), kube.StatefulSet, "default", "db", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	soon(t, func() string {
		for _, claim := range control.List[*corev1.PersistentVolumeClaim](c, kube.PersistentVolumeClaim, "default") {
			if claim.DeletionTimestamp == nil { // the finalizer that protects it has a controller of its own
				return claim.Name + " is left"
			}
		}
		if pods, revisions := len(c.List(kube.Pod, "default")), len(c.List(kube.ControllerRevision, "default")); pods+revisions > 0 {
			return fmt.Sprintf("%d pods and %d revisions are left", pods, revisions)
		}
		return ""
	})
}

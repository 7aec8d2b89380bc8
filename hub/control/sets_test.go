package control_test

import (
	"bytes"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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

package imageplacement

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// waits reports whether a pod has a node, none of its containers has run, and one of them waits for its image.
func waits(p *corev1.Pod) bool {
	if p.Spec.NodeName == "" || p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodPending {
		return false
	}
	return slices.ContainsFunc(slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses), func(s corev1.ContainerStatus) bool {
		w := s.State.Waiting
		return w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff")
	})
}

// better returns the image that a pod waits for in vain on node n, and a node that could run a new pod in its place; "" when the pod is to stay.
func (c *Controller) better(p *corev1.Pod, n *corev1.Node) (image, other string) {
	images := sched.ImageRulesOf(p, c.architectures)
	image = images.Missing(n)
	if image == "" || !c.reports(n.Name, image) || len(kube.ClaimKeys(p)) > 0 || !replaced(c.client, p) {
		return "", ""
	}
	anew := *p
	anew.Spec.NodeName = ""
	rules := sched.RulesOf(&anew)
	for _, m := range control.List[*corev1.Node](c.client, kube.Node, "") {
		if bind, _ := rules.Admit(m); bind && m.Name != n.Name && images.Missing(m) == "" {
			return image, m.Name
		}
	}
	return "", ""
}

// replaced reports whether a controller of the hub makes a new pod when p is deleted, and leaves it to the scheduler where. Those of a DaemonSet
// belong where they are.
func replaced(r control.Reader, p *corev1.Pod) bool {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return false
	}
	template := func(t *corev1.PodTemplateSpec) bool { return t != nil && t.Spec.NodeName == "" }
	switch ref.Kind {
	case kube.ReplicaSet.Kind:
		o, ok := control.Get[*appsv1.ReplicaSet](r, kube.ReplicaSet, p.Namespace, ref.Name)
		return ok && o.UID == ref.UID && template(&o.Spec.Template)
	case kube.ReplicationController.Kind:
		o, ok := control.Get[*corev1.ReplicationController](r, kube.ReplicationController, p.Namespace, ref.Name)
		return ok && o.UID == ref.UID && template(o.Spec.Template)
	case kube.StatefulSet.Kind:
		o, ok := control.Get[*appsv1.StatefulSet](r, kube.StatefulSet, p.Namespace, ref.Name)
		return ok && o.UID == ref.UID && template(&o.Spec.Template)
	case kube.Job.Kind:
		o, ok := control.Get[*batchv1.Job](r, kube.Job, p.Namespace, ref.Name)
		return ok && o.UID == ref.UID && template(&o.Spec.Template) && bears(o)
	}
	return false
}

// bears reports whether a Job goes on when it counts one more failure.
func bears(j *batchv1.Job) bool {
	return j.Spec.BackoffLimitPerIndex == nil && j.Spec.BackoffLimit != nil && j.Status.Failed < *j.Spec.BackoffLimit
}

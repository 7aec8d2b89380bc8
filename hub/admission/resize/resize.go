// Package resize refuses to let a pod grow beyond the node that it is on: no waiting makes room for that. Whether there is room
// between the pods of the node, the node itself decides.
package resize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// The causes by which clients know the refusals.
const (
	causeCapacity metav1.CauseType = "NodeCapacity"
	causePlatform metav1.CauseType = "UnsupportedPlatform"
)

// Nodes is the step.
type Nodes struct{ objects control.Reader }

// New returns the step, which reads nodes from objects.
func New(objects control.Reader) *Nodes { return &Nodes{objects} }

// Concerns reports whether a resizes a pod.
func Concerns(a *registry.AdmissionRequest) bool {
	return a.Target.Kind.GVK == kube.Pod && a.Subresource == "resize" && a.Operation == registry.OpUpdate
}

// Check refuses what the pod's node could not give were it empty. Pods that are on no node yet are the scheduler's matter.
func (n *Nodes) Check(_ context.Context, a *registry.AdmissionRequest) error {
	if !Concerns(a) {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	old, had := a.Old.(*corev1.Pod)
	if !ok || !had || pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	node, ok := control.Get[*corev1.Node](n.objects, kube.Node, "", pod.Spec.NodeName)
	if !ok {
		return refuse.Forbidden(a, fmt.Errorf("node %q not found", pod.Spec.NodeName))
	}
	if os := node.Labels[corev1.LabelOSStable]; os != "" && os != "linux" {
		return because(a, causePlatform, fmt.Errorf("pod resize is only supported on linux nodes, node %q is %q", node.Name, os))
	}
	if err := exceeds(pod, node.Status.Allocatable); err != nil {
		return because(a, causeCapacity, err)
	}
	return nil
}

// exceeds returns what of the pod's requests is more than all that there is.
func exceeds(pod *corev1.Pod, allocatable corev1.ResourceList) error {
	requests := kube.PodSpecRequests(pod)
	var lacks []string
	for _, r := range []struct {
		name   corev1.ResourceName
		amount func(*resource.Quantity) int64
	}{{corev1.ResourceCPU, (*resource.Quantity).MilliValue}, {corev1.ResourceMemory, (*resource.Quantity).Value}} {
		want, all := requests[r.name], allocatable[r.name]
		if want.Cmp(all) > 0 {
			lacks = append(lacks, fmt.Sprintf("%s, requested: %d, allocatable: %d", r.name, r.amount(&want), r.amount(&all)))
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return errors.New("node didn't have enough allocatable resources: " + strings.Join(lacks, "; "))
}

// because refuses a for a cause that programs can read.
func because(a *registry.AdmissionRequest, cause metav1.CauseType, why error) error {
	err := refuse.Forbidden(a, why)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	return err
}

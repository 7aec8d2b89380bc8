package noderestriction

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/internal/kube"
)

// pod lets a node make mirror pods of its own, and delete, evict and report its pods.
func (r *Restriction) pod(node string, a *registry.AdmissionRequest) error {
	switch a.Subresource {
	case "status":
		return admitStatus(node, a)
	case "eviction":
		return r.evict(node, a)
	case "":
	default:
		return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.Subresource)
	}
	switch a.Operation {
	case registry.OpCreate:
		return r.mirror(node, a)
	case registry.OpDelete:
		if p, ok := a.Old.(*corev1.Pod); !ok || p.Spec.NodeName != node {
			return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node)
}

// mirror lets a node make a mirror pod that is bound to it, owned by it, and refers to no other object.
func (r *Restriction) mirror(node string, a *registry.AdmissionRequest) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Object)
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node)
	}
	switch len(pod.OwnerReferences) {
	case 0:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case 1:
	default:
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node)
	}
	owner := pod.OwnerReferences[0]
	switch {
	case owner.APIVersion != kube.Node.GroupVersion().String() || owner.Kind != kube.Node.Kind || owner.Name != node:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case owner.Controller == nil || !*owner.Controller:
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", node)
	case owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion:
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	n, ok := control.Get[*corev1.Node](r.objects, kube.Node, "", node)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("nodes"), node)
	}
	if owner.UID != n.UID {
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", node, owner.UID, n.UID)
	}
	plural, err := core.PodReference(pod)
	if err != nil {
		return fmt.Errorf("error checking mirror pod for API references: %w", err)
	}
	if plural != "" {
		return fmt.Errorf("node %q can not create pods that reference %s", node, plural)
	}
	return nil
}

// admitStatus lets a node report its pods, and nothing beside that which a controller or scheduler reads.
func admitStatus(node string, a *registry.AdmissionRequest) error {
	old, ok := a.Old.(*corev1.Pod)
	if !ok || a.Operation != registry.OpUpdate {
		return fmt.Errorf("unexpected operation %q", a.Operation)
	}
	if old.Spec.NodeName != node {
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Object)
	}
	switch {
	case !maps.Equal(pod.Labels, old.Labels):
		return fmt.Errorf("node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(pod.Status.ResourceClaimStatuses, old.Status.ResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update resource claim statues", node)
	case !equality.Semantic.DeepEqual(pod.Status.ExtendedResourceClaimStatus, old.Status.ExtendedResourceClaimStatus):
		return fmt.Errorf("node %q cannot update extended resource claim status", node)
	}
	return nil
}

func (r *Restriction) evict(node string, a *registry.AdmissionRequest) error {
	if a.Operation != registry.OpCreate {
		return fmt.Errorf("unexpected operation %s", a.Operation)
	}
	eviction, ok := a.Body.(*policyv1.Eviction)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Body)
	}
	name := a.Name
	if name == "" {
		name = eviction.Name
	}
	if name == "" {
		return errors.New("could not determine pod from request data")
	}
	pod, ok := control.Get[*corev1.Pod](r.objects, kube.Pod, a.Namespace, name)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	if pod.Spec.NodeName != node {
		return fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node)
	}
	return nil
}

// admitClaim lets a node report the size and the conditions of a claim.
func admitClaim(node string, a *registry.AdmissionRequest) error {
	if a.Subresource != "status" {
		return errors.New("may only update PVC status")
	}
	obj, isNew := a.Object.(*corev1.PersistentVolumeClaim)
	old, isOld := a.Old.(*corev1.PersistentVolumeClaim)
	if a.Operation != registry.OpUpdate || !isNew || !isOld {
		return fmt.Errorf("unexpected operation %q", a.Operation)
	}
	bare := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResourceStatuses, c.Status.AllocatedResources = nil, nil
		return c
	}
	if !equality.Semantic.DeepEqual(bare(obj), bare(old)) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions", node)
	}
	return nil
}

// claimOf returns the name of the claim behind a volume of a pod, also of an ephemeral one; "" when there is none.
func claimOf(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil:
		return pod.Name + "-" + v.Name
	}
	return ""
}

// mountsToken reports whether a pod has a volume with a token for an audience.
func mountsToken(pod *corev1.Pod, audience string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
		})
	})
}

package control

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// GVKOf is an object's kind: from its TypeMeta, or, when a caller has left that empty, from its Go type for the kinds
// that the hub's own loops deal in.
func GVKOf(obj kube.Object) kube.GVK {
	if gvk := obj.GetObjectKind().GroupVersionKind(); gvk.Kind != "" {
		return gvk
	}
	switch obj.(type) {
	case *corev1.Pod:
		return kube.Pod
	case *corev1.Node:
		return kube.Node
	case *corev1.Namespace:
		return kube.Namespace
	case *corev1.Service:
		return kube.Service
	//lint:ignore SA1019 deprecated, and served for as long as Kubernetes serves them
	case *corev1.Endpoints:
		return kube.Endpoints
	case *corev1.ConfigMap:
		return kube.ConfigMap
	case *corev1.Secret:
		return kube.Secret
	case *corev1.ServiceAccount:
		return kube.ServiceAccount
	case *corev1.Event:
		return kube.Event
	case *appsv1.Deployment:
		return kube.Deployment
	case *appsv1.ReplicaSet:
		return kube.ReplicaSet
	case *discoveryv1.EndpointSlice:
		return kube.EndpointSlice
	}
	return kube.GVK{}
}

// ReferenceTo is a reference to obj as events and endpoints carry it.
func ReferenceTo(obj kube.Object) corev1.ObjectReference {
	apiVersion, kind := GVKOf(obj).ToAPIVersionAndKind()
	return corev1.ObjectReference{
		APIVersion: apiVersion, Kind: kind,
		Namespace: obj.GetNamespace(), Name: obj.GetName(),
		UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
	}
}

// OwnedBy reports whether obj's controller is the object with owner's UID.
func OwnedBy(obj, owner kube.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == owner.GetUID()
}

// OwnerIndex is the index by the UIDs of an object's owner references, which every kind has.
const OwnerIndex = "owner"

// NodeIndex is the index of Pods by spec.nodeName.
const NodeIndex = "node"

// OwnKeyUnlessStatus is a Source.Keys that gives the object's own key, except for a change of its status alone: a
// controller that writes that status itself would otherwise wake itself up each time.
func OwnKeyUnlessStatus(c Change) []Key {
	if c.Old != nil && c.New != nil && c.Old.GetGeneration() == c.New.GetGeneration() && c.New.GetGeneration() != 0 &&
		c.Old.GetUID() == c.New.GetUID() &&
		(c.Old.GetDeletionTimestamp() == nil) == (c.New.GetDeletionTimestamp() == nil) &&
		equality.Semantic.DeepEqual(c.Old.GetLabels(), c.New.GetLabels()) &&
		equality.Semantic.DeepEqual(c.Old.GetAnnotations(), c.New.GetAnnotations()) &&
		equality.Semantic.DeepEqual(c.Old.GetFinalizers(), c.New.GetFinalizers()) &&
		equality.Semantic.DeepEqual(c.Old.GetOwnerReferences(), c.New.GetOwnerReferences()) {
		return nil
	}
	return []Key{KeyOf(c.Object())}
}

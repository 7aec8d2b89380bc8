package control

import (
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/internal/kube"
)

// goTypes has the Go types of the kinds that the hub's own loops create objects of. It is built for the first object that does
// not name its kind, which is one that a loop has just created: the API's objects all do.
var goTypes = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(fmt.Sprintf("control: types of k8s.io/api contradict each other: %v", err))
		}
	}
	return s
})

// GVKOf returns an object's kind: from its TypeMeta, or, when a caller has left that empty, from its Go type. It panics for an
// object that names no kind and has a Go type that goTypes does not have.
func GVKOf(obj kube.Object) kube.GVK {
	if gvk := obj.GetObjectKind().GroupVersionKind(); gvk.Kind != "" {
		return gvk
	}
	gvks, _, err := goTypes().ObjectKinds(obj)
	if err != nil {
		panic(fmt.Sprintf("control: the kind of an object (%T) without apiVersion and kind: %v", obj, err))
	}
	return gvks[0]
}

// ReferenceTo returns a reference to obj as Events and Endpoints carry it.
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

// OwnKeyUnlessStatus is a Source.Keys that returns the object's own key, except for a change of its status alone: a
// controller that writes that status would otherwise wake itself each time.
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

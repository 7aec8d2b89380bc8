package resource

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/internal/kube"
)

// Partial reports whether obj is what loops see of an object of this kind (Slim), and not the object itself.
func (k *Kind) Partial(obj kube.Object) bool {
	if k.Unstructured() {
		_, partial := obj.(*metav1.PartialObjectMetadata)
		return partial
	}
	return k.Slim != nil
}

// slim is Slim of kinds without a Go type. Loops know such objects by their metadata only, and decoded they take up to fourteen times
// their JSON: a map for each field of theirs. That tree is not built here. The result is in the codec's version, whichever the object
// was written in: metadata is the same in all.
func (c unstructuredCodec) slim(data []byte) (kube.Object, error) {
	obj := &metav1.PartialObjectMetadata{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, obj); err != nil || obj.Name == "" {
		if obj, err = c.readable(data); err != nil {
			return nil, err
		}
	}
	obj.ManagedFields, obj.Annotations = nil, nil // larger than all else, and no loop reads them
	obj.SetGroupVersionKind(c.gvk)
	return obj.DeepCopy(), nil // lists without spare capacity
}

// readable returns the metadata of an object that does not have the types of metav1.ObjectMeta in each field, without those fields. No
// write stores such an object; what is stored must remain readable, and deletable, all the same.
func (c unstructuredCodec) readable(data []byte) (*metav1.PartialObjectMetadata, error) {
	whole, err := c.Decode(data)
	if err != nil {
		return nil, err
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: whole.GetNamespace(), Name: whole.GetName(), UID: whole.GetUID(),
		ResourceVersion: whole.GetResourceVersion(), Generation: whole.GetGeneration(),
		CreationTimestamp: whole.GetCreationTimestamp(), DeletionTimestamp: whole.GetDeletionTimestamp(),
		DeletionGracePeriodSeconds: whole.GetDeletionGracePeriodSeconds(),
		Labels:                     whole.GetLabels(), OwnerReferences: whole.GetOwnerReferences(), Finalizers: whole.GetFinalizers(),
	}}, nil
}

package control

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/internal/kube"
)

// Claim settles which objects belong to owner (of kind gvk): it releases those of its own that no longer match the selector, and
// adopts those of the orphans that do. It returns what belongs to owner afterwards. An owner that is being deleted releases and
// adopts nothing. A conflict on one object does not stop the others from being claimed.
//
// owner is as the cache has it, and the cache may be behind. So the store is asked, before the first adoption, whether owner is
// unchanged: an object that is adopted by an owner that is gone, or replaced by another of its name, would be collected as
// garbage. When the owner is gone nothing is adopted; when it has changed the error is a Conflict.
func Claim(ctx context.Context, w Writer, owner kube.Object, gvk kube.GVK, selector labels.Selector, owned, orphans []kube.Object) ([]kube.Object, error) {
	return ClaimTracked(ctx, w, owner, gvk, selector, "", owned, orphans)
}

// ClaimTracked does what Claim does for an owner that counts its objects by a finalizer: what is adopted gets it, and what is
// released loses it, in the same write. An empty finalizer is none.
func ClaimTracked(ctx context.Context, w Writer, owner kube.Object, gvk kube.GVK, selector labels.Selector, finalizer string, owned, orphans []kube.Object) ([]kube.Object, error) {
	var mine []kube.Object
	var errs []error
	for _, obj := range owned {
		if !OwnedBy(obj, owner) {
			continue
		}
		if selector.Matches(labels.Set(obj.GetLabels())) || owner.GetDeletionTimestamp() != nil || obj.GetDeletionTimestamp() != nil {
			mine = append(mine, obj)
			continue
		}
		free := obj.DeepCopyObject().(kube.Object)
		free.SetOwnerReferences(slices.DeleteFunc(free.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() }))
		free.SetFinalizers(slices.DeleteFunc(free.GetFinalizers(), func(f string) bool { return finalizer != "" && f == finalizer }))
		_, err := w.Update(ctx, free, "")
		errs = append(errs, IgnoreNotFound(err))
	}
	if owner.GetDeletionTimestamp() != nil {
		return mine, JoinErrors(errs...)
	}
	checked := false
	for _, obj := range orphans {
		if !selector.Matches(labels.Set(obj.GetLabels())) || obj.GetDeletionTimestamp() != nil || metav1.GetControllerOfNoCopy(obj) != nil {
			continue
		}
		if !checked {
			if err := unchanged(ctx, w, owner); err != nil {
				errs = append(errs, IgnoreNotFound(err))
				break
			}
			checked = true
		}
		taken := obj.DeepCopyObject().(kube.Object)
		refs := slices.DeleteFunc(taken.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() })
		taken.SetOwnerReferences(append(refs, *metav1.NewControllerRef(owner, gvk)))
		if finalizer != "" && !slices.Contains(taken.GetFinalizers(), finalizer) {
			taken.SetFinalizers(append(taken.GetFinalizers(), finalizer))
		}
		got, err := w.Update(ctx, taken, "")
		if err == nil {
			mine = append(mine, got)
		}
		errs = append(errs, IgnoreNotFound(err))
	}
	return mine, JoinErrors(errs...)
}

// unchanged returns nil when the store has owner at the revision that the cache has. It is a write that changes nothing: the
// store checks its preconditions and writes nothing.
func unchanged(ctx context.Context, w Writer, owner kube.Object) error {
	return w.Commit(ctx, []Write{{Object: owner, Old: owner, Subresource: "status"}})
}

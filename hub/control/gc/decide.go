package gc

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// ownerState is what has become of an owner that a reference names.
type ownerState int

const (
	ownerThere   ownerState = iota // keeps its dependents
	ownerAbsent                    // gone, or another object by that name now
	ownerWaiting                   // being deleted, and waits for its dependents to go first
	ownerUnknown                   // not known: the kind is not served, or the reference is not allowed
)

// verdict is what to do with an object because of its owners.
type verdict int

const (
	leave       verdict = iota // nothing
	releaseRefs                // take away the references to owners that are gone or going; others keep the object
	remove                     // no owner keeps it
)

// judge decides about an object from the states of its owners, one for each reference. drop are the references that
// releaseRefs takes away. An owner of which nothing is known keeps the object: deleting too little can be put right.
func judge(refs []metav1.OwnerReference, states []ownerState) (v verdict, drop []types.UID, waiting bool) {
	if len(refs) == 0 {
		return leave, nil, false
	}
	kept := false
	for i, s := range states {
		switch s {
		case ownerThere, ownerUnknown:
			kept = true
		case ownerWaiting:
			waiting = true
			drop = append(drop, refs[i].UID)
		case ownerAbsent:
			drop = append(drop, refs[i].UID)
		}
	}
	switch {
	case !kept:
		return remove, nil, waiting
	case len(drop) > 0:
		return releaseRefs, drop, waiting
	}
	return leave, nil, waiting
}

// policy is how to delete an object that no owner keeps: as its own finalizers ask, in the foreground when an owner
// waits and it has dependents of its own, and in the background otherwise.
func policy(obj kube.Object, waiting, hasDependents bool) metav1.DeletionPropagation {
	switch {
	case waiting && hasDependents:
		return metav1.DeletePropagationForeground
	case has(obj, metav1.FinalizerOrphanDependents):
		return metav1.DeletePropagationOrphan
	case has(obj, metav1.FinalizerDeleteDependents):
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}

// foreground reports whether the object is being deleted and its dependents go first.
func foreground(obj kube.Object) bool {
	return obj.GetDeletionTimestamp() != nil && has(obj, metav1.FinalizerDeleteDependents)
}

// orphaning reports whether the object is being deleted and its dependents stay.
func orphaning(obj kube.Object) bool {
	return obj.GetDeletionTimestamp() != nil && has(obj, metav1.FinalizerOrphanDependents)
}

func has(obj kube.Object, finalizer string) bool {
	return slices.Contains(obj.GetFinalizers(), finalizer)
}

// blocks reports whether dep keeps an owner with this uid, which is deleted in the foreground, from going.
func blocks(dep kube.Object, uid types.UID) bool {
	for _, r := range dep.GetOwnerReferences() {
		if r.UID == uid && r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion {
			return true
		}
	}
	return false
}

func withoutRefs(refs []metav1.OwnerReference, drop []types.UID) []metav1.OwnerReference {
	return slices.DeleteFunc(slices.Clone(refs), func(r metav1.OwnerReference) bool { return slices.Contains(drop, r.UID) })
}

func withoutFinalizer(finalizers []string, f string) []string {
	return slices.DeleteFunc(slices.Clone(finalizers), func(s string) bool { return s == f })
}

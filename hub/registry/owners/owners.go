// Package owners keeps the owner references of objects in order. It is pure.
package owners

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Dedup removes repeated owner references and warns, as Kubernetes does.
func Dedup(obj metav1.Object) []string {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return nil
	}
	kept := make([]metav1.OwnerReference, 0, len(refs))
	at := map[string]int{}
	var doubled []string
	for _, ref := range refs {
		if _, ok := at[string(ref.UID)]; ok && sameOwner(kept[at[string(ref.UID)]], ref) {
			doubled = append(doubled, string(ref.UID))
			continue
		}
		at[string(ref.UID)] = len(kept)
		kept = append(kept, ref)
	}
	if doubled == nil {
		return nil
	}
	obj.SetOwnerReferences(kept)
	return []string{fmt.Sprintf(".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v", doubled)}
}

// sameOwner reports whether two references are equal in every field; pointers are compared by value.
func sameOwner(a, b metav1.OwnerReference) bool {
	eq := func(x, y *bool) bool { return x == y || x != nil && y != nil && *x == *y }
	return a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name && a.UID == b.UID &&
		eq(a.Controller, b.Controller) && eq(a.BlockOwnerDeletion, b.BlockOwnerDeletion)
}

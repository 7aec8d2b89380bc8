package registry

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// storedKind is the kind whose rules and bytes t's kind lives by: itself unless it is a view.
func storedKind(k *resource.Kind) *resource.Kind { return k.Stored() }

// groupResource names a kind in error texts.
func groupResource(k *resource.Kind) schema.GroupResource { return k.Resource() }

// kindPart is the part of a key that all objects of a kind share: "/core/pods/" of "/core/pods/default/web-0".
func kindPart(key string) string {
	slashes := 0
	for i := range len(key) {
		if key[i] == '/' {
			if slashes++; slashes == 3 {
				return key[:i+1]
			}
		}
	}
	return key
}

// kindFor returns the declaration of gvk, nil when it is not served.
func (r *Registry) kindFor(gvk kube.GVK) *resource.Kind {
	k, _ := r.kinds.Lookup(gvk)
	return k
}

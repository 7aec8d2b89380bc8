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

// kindFor returns the declaration of gvk, nil when it is not served.
func (r *Registry) kindFor(gvk kube.GVK) *resource.Kind {
	k, _ := r.kinds.Lookup(gvk)
	return k
}

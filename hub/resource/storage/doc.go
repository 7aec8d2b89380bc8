// Package storage declares the kinds of storage.k8s.io.
package storage

import (
	_ "k8s.io/kubernetes/pkg/apis/storage/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		csiDriverKind(),
		csiNodeKind(),
		csiStorageCapacityKind(),
		storageClassKind(),
		volumeAttachmentKind(),
		volumeAttributesClassKind(),
	}
}

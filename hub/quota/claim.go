package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// classSuffix is between the name of a StorageClass and what a quota limits of its claims.
const classSuffix = ".storageclass.storage.k8s.io/"

func limitsClaims(name corev1.ResourceName) bool {
	if _, of, ok := strings.Cut(string(name), classSuffix); ok {
		name = corev1.ResourceName(of)
	} else if name == countName(corev1.Resource("persistentvolumeclaims")) {
		return true
	}
	return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
}

// claimUsage returns what a claim takes, in all and of its StorageClass. A volume that is larger than its claim now asks for counts
// as large as it is.
func claimUsage(obj kube.Object, _ time.Time) corev1.ResourceList {
	out := corev1.ResourceList{countName(corev1.Resource("persistentvolumeclaims")): one(), corev1.ResourcePersistentVolumeClaims: one()}
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return out
	}
	class := ""
	if name := claim.Spec.StorageClassName; name != nil {
		class = *name
	}
	if old, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = old
	}
	ofClass := func(name corev1.ResourceName) corev1.ResourceName {
		return corev1.ResourceName(class+classSuffix) + name
	}
	if class != "" {
		out[ofClass(corev1.ResourcePersistentVolumeClaims)] = one()
	}
	size, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return out
	}
	if now, ok := claim.Status.AllocatedResources[corev1.ResourceStorage]; ok && now.Cmp(size) > 0 {
		size = now
	}
	size = size.DeepCopy()
	size.RoundUp(0) // whole bytes
	out[corev1.ResourceRequestsStorage] = size
	if class != "" {
		out[ofClass(corev1.ResourceRequestsStorage)] = size
	}
	return out
}

// claimInScope reports whether a claim belongs to a scope: only VolumeAttributesClass is about claims.
func claimInScope(obj kube.Object, s corev1.ScopedResourceSelectorRequirement) bool {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok || s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false
	}
	var names []string
	for _, name := range []*string{claim.Spec.VolumeAttributesClassName, claim.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			names = append(names, *name)
		}
	}
	if m := claim.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	return selects(s, names...)
}

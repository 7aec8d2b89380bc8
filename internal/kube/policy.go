package kube

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// The kinds that say what may be created, deleted or chosen by default; admission and its controllers read them.
var (
	LimitRange          = corev1.SchemeGroupVersion.WithKind("LimitRange")
	ResourceQuota       = corev1.SchemeGroupVersion.WithKind("ResourceQuota")
	PodDisruptionBudget = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")
	StorageClass        = storagev1.SchemeGroupVersion.WithKind("StorageClass")
	IngressClass        = networkingv1.SchemeGroupVersion.WithKind("IngressClass")
)

// The finalizers that keep a claim while a pod uses it, and a volume while it is bound.
const (
	ClaimProtection  = "kubernetes.io/pvc-protection"
	VolumeProtection = "kubernetes.io/pv-protection"
)

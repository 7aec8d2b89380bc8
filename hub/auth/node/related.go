package node

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"

	"petrel.dev/petrel/internal/kube"
)

// pods returns the pods that are bound to a node, of one namespace ("": of all). Mirror pods refer to nothing, whatever their spec
// says: the node makes them itself, and must not give itself rights by one.
func (z *Authorizer) pods(node, namespace string) (pods []*corev1.Pod) {
	for _, o := range z.cfg.Objects.Index(kube.Pod, "node", node) {
		p, ok := o.(*corev1.Pod)
		if !ok || namespace != "" && p.Namespace != namespace {
			continue
		}
		if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
			pods = append(pods, p)
		}
	}
	return pods
}

// hasPod reports whether a pod, also a mirror pod, is bound to the node.
func (z *Authorizer) hasPod(node, namespace, name string) bool {
	o, ok := z.cfg.Objects.Get(kube.Pod, namespace, name)
	if !ok {
		return false
	}
	p, ok := o.(*corev1.Pod)
	return ok && p.Spec.NodeName == node
}

// usesSecret reports whether a pod of the node names the Secret, or mounts a volume that needs it.
func (z *Authorizer) usesSecret(node, namespace, name string) bool {
	for _, p := range z.pods(node, "") {
		if p.Namespace == namespace && slices.Contains(z.cfg.PodSecrets(p), name) {
			return true
		}
		for _, claim := range kube.PodClaims(p) {
			if v := z.volumeOf(p.Namespace, claim); v != nil && slices.Contains(z.cfg.VolumeSecrets(v), [2]string{namespace, name}) {
				return true
			}
		}
	}
	return false
}

func (z *Authorizer) usesConfigMap(node, namespace, name string) bool {
	return slices.ContainsFunc(z.pods(node, namespace), func(p *corev1.Pod) bool { return slices.Contains(z.cfg.PodConfigMaps(p), name) })
}

func (z *Authorizer) usesAccount(node, namespace, name string) bool {
	return slices.ContainsFunc(z.pods(node, namespace), func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == name })
}

func (z *Authorizer) usesClaim(node, namespace, name string) bool {
	return slices.ContainsFunc(z.pods(node, namespace), func(p *corev1.Pod) bool { return slices.Contains(kube.PodClaims(p), name) })
}

// usesVolume reports whether the volume is bound to a claim of a pod of the node.
func (z *Authorizer) usesVolume(node, _, name string) bool {
	o, ok := z.cfg.Objects.Get(kube.PersistentVolume, "", name)
	if !ok {
		return false
	}
	v, ok := o.(*corev1.PersistentVolume)
	return ok && v.Spec.ClaimRef != nil && z.usesClaim(node, v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name)
}

// volumeOf returns the volume that says it is the claim's; nil when there is none.
func (z *Authorizer) volumeOf(namespace, claim string) *corev1.PersistentVolume {
	o, ok := z.cfg.Objects.Get(kube.PersistentVolumeClaim, namespace, claim)
	if !ok {
		return nil
	}
	c, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok || c.Spec.VolumeName == "" {
		return nil
	}
	if o, ok = z.cfg.Objects.Get(kube.PersistentVolume, "", c.Spec.VolumeName); !ok {
		return nil
	}
	v, ok := o.(*corev1.PersistentVolume)
	if !ok || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.Namespace != namespace || v.Spec.ClaimRef.Name != claim {
		return nil
	}
	return v
}

// usesResourceClaim reports whether a pod of the node has the ResourceClaim, by name or from a template.
func (z *Authorizer) usesResourceClaim(node, namespace, name string) bool {
	for _, p := range z.pods(node, namespace) {
		for _, c := range p.Spec.ResourceClaims {
			if c.ResourceClaimName != nil && *c.ResourceClaimName == name {
				return true
			}
		}
		for _, s := range p.Status.ResourceClaimStatuses {
			if s.ResourceClaimName != nil && *s.ResourceClaimName == name {
				return true
			}
		}
		if s := p.Status.ExtendedResourceClaimStatus; s != nil && s.ResourceClaimName == name {
			return true
		}
	}
	return false
}

func (z *Authorizer) hasAttachment(node, _, name string) bool {
	o, ok := z.cfg.Objects.Get(kube.VolumeAttachment, "", name)
	if !ok {
		return false
	}
	at, ok := o.(*storagev1.VolumeAttachment)
	return ok && at.Spec.NodeName == node
}

func (z *Authorizer) ownsSlice(node, _, name string) bool {
	o, ok := z.cfg.Objects.Get(kube.ResourceSlice, "", name)
	if !ok {
		return false
	}
	s, ok := o.(*resourcev1.ResourceSlice)
	return ok && s.Spec.NodeName != nil && *s.Spec.NodeName == node
}

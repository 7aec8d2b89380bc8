package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	internalpod "k8s.io/kubernetes/pkg/api/pod"
	volumeutil "k8s.io/kubernetes/pkg/api/v1/persistentvolume"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/apis/core"
)

// PodSecrets returns the names of the Secrets that a pod refers to in its own namespace, each once. By upstream's rule these are
// what a kubelet may read on behalf of a pod: image pull secrets, and what containers and volumes of every kind name.
func PodSecrets(p *corev1.Pod) []string {
	return collect(p, podutil.VisitPodSecretNames)
}

// PodConfigMaps returns the names of the ConfigMaps that a pod refers to in its own namespace, each once.
func PodConfigMaps(p *corev1.Pod) []string {
	return collect(p, podutil.VisitPodConfigmapNames)
}

// collect returns the names that visit visits. Pods name few objects, so a search of the list is cheaper than a set.
func collect(p *corev1.Pod, visit func(*corev1.Pod, podutil.Visitor) bool) (names []string) {
	visit(p, func(name string) bool {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return true
	})
	return names
}

// PodReference returns the plural of a kind of objects that a pod refers to, "" when it refers to none: by upstream's rule for mirror
// pods, which may not. An error means that the pod has something which is not known.
func PodReference(p *corev1.Pod) (plural string, err error) {
	in := new(core.Pod)
	if err := legacyscheme.Scheme.Convert(p, in, nil); err != nil {
		return "", err
	}
	_, plural, err = internalpod.HasAPIObjectReference(in)
	return plural, err
}

// VolumeSecrets returns the namespaces and names of the Secrets that a kubelet needs to mount a volume.
func VolumeSecrets(v *corev1.PersistentVolume) (secrets [][2]string) {
	volumeutil.VisitPVSecretNames(v, func(namespace, name string, kubeletVisible bool) bool {
		if kubeletVisible {
			secrets = append(secrets, [2]string{namespace, name})
		}
		return true
	})
	return secrets
}

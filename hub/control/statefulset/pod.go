package statefulset

import (
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// newPod returns the pod of an ordinal, of a version's template. Its host name is its name, in the domain of the set's Service.
func newPod(s *appsv1.StatefulSet, v version, n int) *corev1.Pod {
	p := podset.FromTemplate(s, kube.StatefulSet, v.template)
	p.GenerateName, p.Name = "", podName(s, n)
	setLabels(p, n)
	p.Labels[appsv1.StatefulSetRevisionLabel] = v.name
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, s.Spec.ServiceName
	p.Spec.Volumes = volumes(s, p.Spec.Volumes, n)
	return p
}

// setLabels gives a pod the labels of its identity.
func setLabels(p *corev1.Pod, n int) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(n)
}

// volumes returns the volumes with those of the claims, which take the place of others of their names.
func volumes(s *appsv1.StatefulSet, own []corev1.Volume, n int) []corev1.Volume {
	var out []corev1.Volume
	for i := range s.Spec.VolumeClaimTemplates {
		t := &s.Spec.VolumeClaimTemplates[i]
		out = append(out, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(s, t.Name, n)}}})
	}
	claims := len(out)
	for _, v := range own {
		if !slices.ContainsFunc(out[:claims], func(c corev1.Volume) bool { return c.Name == v.Name }) {
			out = append(out, v)
		}
	}
	return out
}

// identified returns a copy of a pod with the labels and volumes of its identity, nil when it has them.
func identified(s *appsv1.StatefulSet, p *corev1.Pod) *corev1.Pod {
	n, ok := ordinal(s, p.Name)
	if !ok || p.Labels[appsv1.StatefulSetPodNameLabel] == p.Name && storageMatches(s, p, n) {
		return nil
	}
	up := p.DeepCopy()
	setLabels(up, n)
	if !storageMatches(s, p, n) {
		up.Spec.Volumes = volumes(s, up.Spec.Volumes, n)
	}
	return up
}

// storageMatches reports whether the pod uses the claims of its ordinal.
func storageMatches(s *appsv1.StatefulSet, p *corev1.Pod, n int) bool {
	for i := range s.Spec.VolumeClaimTemplates {
		t := s.Spec.VolumeClaimTemplates[i].Name
		if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == t && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claimName(s, t, n)
		}) {
			return false
		}
	}
	return true
}

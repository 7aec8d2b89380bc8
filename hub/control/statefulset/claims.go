package statefulset

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// claimName returns the name of the claim that the pod of an ordinal has by a template.
func claimName(s *appsv1.StatefulSet, template string, n int) string {
	return template + "-" + s.Name + "-" + strconv.Itoa(n)
}

// claimOf reports whether a claim's name is one that the set gives.
func claimOf(s *appsv1.StatefulSet, claim string) bool {
	for i := range s.Spec.VolumeClaimTemplates {
		if pod, ok := strings.CutPrefix(claim, s.Spec.VolumeClaimTemplates[i].Name+"-"); ok {
			if _, ok := ordinal(s, pod); ok {
				return true
			}
		}
	}
	return false
}

// eachClaim calls f with each claim that a pod has by the templates, nil where there is none.
func (st *state) eachClaim(p *corev1.Pod, f func(template *corev1.PersistentVolumeClaim, name string, claim *corev1.PersistentVolumeClaim)) {
	n, _ := ordinal(st.set, p.Name)
	for i := range st.set.Spec.VolumeClaimTemplates {
		t := &st.set.Spec.VolumeClaimTemplates[i]
		name := claimName(st.set, t.Name, n)
		f(t, name, st.claim(name))
	}
}

// addClaims adds the claims that the pod lacks. A new one has the owners that the retention policy gives it while its pod is wanted.
func (st *state) addClaims(p *corev1.Pod, a *actions) {
	st.eachClaim(p, func(t *corev1.PersistentVolumeClaim, name string, there *corev1.PersistentVolumeClaim) {
		if there != nil {
			return
		}
		c := &corev1.PersistentVolumeClaim{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
		c.Name, c.Namespace = name, st.set.Namespace
		c.Labels = maps.Clone(c.Labels)
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, st.set.Spec.Selector.MatchLabels)
		n, _ := ordinal(st.set, p.Name)
		if bySet, _ := owners(st.set, n); bySet {
			c.OwnerReferences = append(c.OwnerReferences, *metav1.NewControllerRef(st.set, kube.StatefulSet))
		}
		a.claims = append(a.claims, podClaim{c, p.Name})
	})
}

// staleClaim reports whether a claim belongs to an earlier pod of this name, with which it is about to be deleted.
func (st *state) staleClaim(p *corev1.Pod) (stale bool) {
	if policy(st.set).WhenScaled == appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
		return false
	}
	st.eachClaim(p, func(_ *corev1.PersistentVolumeClaim, _ string, c *corev1.PersistentVolumeClaim) {
		stale = stale || c != nil && isStale(c, p, kube.Pod)
	})
	return stale
}

// endingClaim returns an error when a claim of the pod is being deleted.
func (st *state) endingClaim(p *corev1.Pod) (err error) {
	st.eachClaim(p, func(_ *corev1.PersistentVolumeClaim, name string, c *corev1.PersistentVolumeClaim) {
		if c != nil && c.DeletionTimestamp != nil {
			err = fmt.Errorf("pvc %s is being deleted", name)
		}
	})
	return err
}

// policy returns the retention policy; without one, claims are kept.
func policy(s *appsv1.StatefulSet) appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy {
	if p := s.Spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		return *p
	}
	return appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
		WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType}
}

// owners returns who owns the claims of an ordinal: garbage collection deletes them with their owner. A claim whose pod is not
// wanted goes with the pod, where scaling down deletes; any other goes with the set, where deleting the set does.
func owners(s *appsv1.StatefulSet, n int) (bySet, byPod bool) {
	p := policy(s)
	scaled := p.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	out := !inRange(s, n)
	return p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType && !(scaled && out), scaled && out
}

// fixOwners adds updates of the pod's claims whose owners are not those of the retention policy.
func (st *state) fixOwners(p *corev1.Pod, a *actions) {
	n, _ := ordinal(st.set, p.Name)
	st.eachClaim(p, func(_ *corev1.PersistentVolumeClaim, _ string, c *corev1.PersistentVolumeClaim) {
		if c == nil || isStale(c, st.set, kube.StatefulSet) || isStale(c, p, kube.Pod) {
			return // what an earlier set or pod has left belongs to the garbage collector
		}
		ours := func(r metav1.OwnerReference) bool { return r.UID == st.set.UID || p.UID != "" && r.UID == p.UID }
		refs := slices.DeleteFunc(slices.Clone(c.OwnerReferences), ours)
		// Another controller's claim is left to it; references of ours beside that one would contradict it.
		if !slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.Controller != nil && *r.Controller }) {
			bySet, byPod := owners(st.set, n)
			if bySet {
				refs = append(refs, *metav1.NewControllerRef(st.set, kube.StatefulSet))
			}
			if byPod && p.UID != "" {
				refs = append(refs, *metav1.NewControllerRef(p, kube.Pod))
			}
		}
		if sameOwners(refs, c.OwnerReferences) {
			return
		}
		up := c.DeepCopy()
		up.OwnerReferences = refs
		a.update = append(a.update, update{obj: up})
	})
}

// sameOwners reports whether two lists have the same references, in whatever order.
func sameOwners(a, b []metav1.OwnerReference) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(r metav1.OwnerReference) bool {
		return !slices.ContainsFunc(b, func(o metav1.OwnerReference) bool { return equality.Semantic.DeepEqual(r, o) })
	})
}

// isStale reports whether a claim is owned by an earlier object of this kind and name.
func isStale(c *corev1.PersistentVolumeClaim, obj kube.Object, gvk kube.GVK) bool {
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	return slices.ContainsFunc(c.OwnerReferences, func(r metav1.OwnerReference) bool {
		return r.APIVersion == apiVersion && r.Kind == kind && r.Name == obj.GetName() && r.UID != obj.GetUID()
	})
}

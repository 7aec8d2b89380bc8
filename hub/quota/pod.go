package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// podNames are what quotas limit of pods, besides what begins with one of podPrefixes, and extended resources.
var podNames = map[corev1.ResourceName]bool{
	countName(corev1.Resource("pods")): true, corev1.ResourcePods: true,
	corev1.ResourceCPU: true, corev1.ResourceMemory: true, corev1.ResourceEphemeralStorage: true,
	corev1.ResourceRequestsCPU: true, corev1.ResourceRequestsMemory: true, corev1.ResourceRequestsEphemeralStorage: true,
	corev1.ResourceLimitsCPU: true, corev1.ResourceLimitsMemory: true, corev1.ResourceLimitsEphemeralStorage: true,
}

var podPrefixes = []string{corev1.ResourceHugePagesPrefix, corev1.ResourceRequestsHugePagesPrefix}

func limitsPods(name corev1.ResourceName) bool {
	if podNames[name] || slices.ContainsFunc(podPrefixes, func(p string) bool { return strings.HasPrefix(string(name), p) }) {
		return true
	}
	extended, ok := strings.CutPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
	return ok && isExtended(corev1.ResourceName(extended))
}

// isExtended reports whether a resource is not one of Kubernetes' own: those have no domain, or one of kubernetes.io.
func isExtended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") &&
		(!strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) || strings.HasPrefix(string(name), "deviceclass.resource.kubernetes.io/"))
}

// podUsage returns what a pod takes: one of count/pods as long as it is stored, and all else until it has ended.
func podUsage(obj kube.Object, now time.Time) corev1.ResourceList {
	out := corev1.ResourceList{countName(corev1.Resource("pods")): one()}
	pod, ok := obj.(*corev1.Pod)
	if !ok || ended(pod, now) {
		return out
	}
	out[corev1.ResourcePods] = one()
	requests, limits := kube.PodRequests(pod), kube.PodLimits(pod)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if v, ok := requests[name]; ok {
			out[name], out[corev1.DefaultResourceRequestsPrefix+name] = v, v
		}
		if v, ok := limits[name]; ok {
			out["limits."+name] = v
		}
	}
	for name, v := range requests {
		huge := strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if huge {
			out[name] = v
		}
		if huge || isExtended(name) {
			out[corev1.DefaultResourceRequestsPrefix+name] = v
		}
	}
	return out
}

// ended reports whether a pod takes nothing any more.
func ended(pod *corev1.Pod, now time.Time) bool {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	at, ok := deadline(pod)
	return ok && now.After(at)
}

// deadline returns when a pod that is being deleted stops counting, although it still exists: a node that is dark must not keep
// its pods from being replaced.
func deadline(obj kube.Object) (time.Time, bool) {
	at, grace := obj.GetDeletionTimestamp(), obj.GetDeletionGracePeriodSeconds()
	if at == nil || grace == nil {
		return time.Time{}, false
	}
	return at.Add(kube.Seconds(*grace)), true
}

// podInScope reports whether a pod belongs to a scope.
func podInScope(obj kube.Object, s corev1.ScopedResourceSelectorRequirement) bool {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return false
	}
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminates(pod)
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminates(pod)
	case corev1.ResourceQuotaScopeBestEffort:
		return kube.QOS(pod) == corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return kube.QOS(pod) != corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		if pod.Spec.PriorityClassName == "" {
			return s.Operator != corev1.ScopeSelectorOpExists && selects(s)
		}
		return selects(s, pod.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return looksAcross(pod.Spec.Affinity)
	}
	return false
}

// terminates reports whether a pod ends by itself after some time.
func terminates(pod *corev1.Pod) bool {
	return pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
}

// looksAcross reports whether a pod's place depends on pods of other namespaces.
func looksAcross(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	weighted := func(list []corev1.WeightedPodAffinityTerm) {
		for _, w := range list {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}

// explicit are the resources that each container must give where a quota limits them: nothing could be counted otherwise.
var explicit = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceMemory,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
}

// missing returns an error that names what containers of the pod do not give and the quota limits; nil when they give all.
func missing(hard corev1.ResourceList, pod *corev1.Pod) error {
	if r := pod.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return nil // given for the pod as a whole
	}
	var texts []string
	for _, name := range explicit {
		if _, ok := hard[name]; !ok {
			continue
		}
		names := map[string]bool{}
		for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for _, c := range list {
				if !gives(c.Resources, name) {
					names[c.Name] = true
				}
			}
		}
		if len(names) > 0 {
			texts = append(texts, fmt.Sprintf("%s for: %s", name, strings.Join(slices.Sorted(maps.Keys(names)), ",")))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("must specify %s", strings.Join(texts, "; "))
}

func gives(r corev1.ResourceRequirements, name corev1.ResourceName) bool {
	if limit, ok := strings.CutPrefix(string(name), "limits."); ok {
		_, ok = r.Limits[corev1.ResourceName(limit)]
		return ok
	}
	_, ok := r.Requests[corev1.ResourceName(strings.TrimPrefix(string(name), corev1.DefaultResourceRequestsPrefix))]
	return ok
}

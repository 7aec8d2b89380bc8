package core

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper/qos"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func podKind() *resource.Kind {
	k := resource.Declare(kube.Pod, "pods", "pod")
	k.ShortNames = []string{"po"}
	k.Categories = []string{"all"}
	k.Rules = withAppArmor(resource.Strategy[api.Pod]{
		PrepareCreate:  preparePod,
		PrepareUpdate:  preparePodUpdate,
		ValidateCreate: func(pod *api.Pod) field.ErrorList { return validation.ValidatePodCreate(pod, podOptions(pod, nil)) },
		ValidateUpdate: func(pod, old *api.Pod) field.ErrorList {
			return validation.ValidatePodUpdate(pod, old, podOptions(pod, old))
		},
		WarnCreate: podWarnings,
	}.Rules())
	k.Rules.Default = withPullPolicies(k.Rules.Default)
	k.Subresources["status"] = resource.Strategy[api.Pod]{
		PrepareUpdate: preparePodStatus,
		ValidateUpdate: func(pod, old *api.Pod) field.ErrorList {
			return validation.ValidatePodStatusUpdate(pod, old, podOptions(pod, old))
		},
		WarnUpdate: podStatusWarnings,
	}.Status(k)
	k.Subresources["ephemeralcontainers"] = ephemeralContainers(k)
	k.Subresources["resize"] = podResize(k)
	k.Subresources["binding"] = &resource.Subresource{Name: "binding", GVK: corev1.SchemeGroupVersion.WithKind("Binding"),
		Verbs: []string{"create"}, New: func() runtime.Object { return &corev1.Binding{} }}
	k.Subresources["eviction"] = &resource.Subresource{Name: "eviction", GVK: policyv1.SchemeGroupVersion.WithKind("Eviction"),
		Verbs: []string{"create"}, New: func() runtime.Object { return &policyv1.Eviction{} }}
	k.Subresources["log"] = &resource.Subresource{Name: "log", GVK: k.GVK, Verbs: []string{"get"}, Connect: true,
		New: func() runtime.Object { return &corev1.PodLogOptions{} }}
	k.Subresources["exec"] = podStream("exec", func() runtime.Object { return &corev1.PodExecOptions{} })
	k.Subresources["attach"] = podStream("attach", func() runtime.Object { return &corev1.PodAttachOptions{} })
	k.Subresources["portforward"] = podStream("portforward", func() runtime.Object { return &corev1.PodPortForwardOptions{} })
	proxied(k, func() runtime.Object { return &corev1.PodProxyOptions{} })
	k.Grace = podGrace
	k.ReturnDeletedObject = true
	k.SelectFields(podFields, "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
		"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName")
	k.Indexes["node"] = func(obj kube.Object) []string {
		if node := obj.(*corev1.Pod).Spec.NodeName; node != "" {
			return []string{node}
		}
		return nil
	}
	k.Indexes[kube.ClaimIndex] = kube.ClaimKeys
	return k
}

// podStream declares a stream of a pod.
func podStream(name string, options func() runtime.Object) *resource.Subresource {
	return stream(name, options, "create", "get")
}

// proxied declares the proxy of a kind.
func proxied(k *resource.Kind, options func() runtime.Object) {
	k.Subresources["proxy"] = stream("proxy", options, "create", "delete", "get", "patch", "update")
	k.Subresources["proxy"].Proxy = true
}

// stream declares a subresource that is a stream.
func stream(name string, options func() runtime.Object, verbs ...string) *resource.Subresource {
	gvks, _, err := resource.Scheme().ObjectKinds(options())
	if err != nil {
		panic(err) // core/v1 is installed
	}
	return &resource.Subresource{Name: name, GVK: gvks[0], Verbs: verbs, Connect: true, New: options}
}

func podOptions(pod, old *api.Pod) validation.PodValidationOptions {
	var spec *api.PodSpec
	var meta *metav1.ObjectMeta
	if old != nil {
		spec, meta = &old.Spec, &old.ObjectMeta
	}
	opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, spec, &pod.ObjectMeta, meta)
	opts.ResourceIsPod = true
	return opts
}

func preparePod(pod *api.Pod) {
	pod.Generation = 1
	pod.Status = api.PodStatus{Phase: api.PodPending, QOSClass: qos.GetPodQOS(pod)}
	podutil.DropDisabledPodFields(pod, nil)
	if len(pod.Spec.SchedulingGates) > 0 {
		podutil.UpdatePodCondition(&pod.Status, &api.PodCondition{
			Type:    api.PodScheduled,
			Status:  api.ConditionFalse,
			Reason:  corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		})
	}
	mergeLabelKeys(pod)
}

func preparePodUpdate(pod, old *api.Pod) {
	pod.Status = *old.Status.DeepCopy()
	podutil.DropDisabledPodFields(pod, old)
	if !apiequality.Semantic.DeepEqual(pod.Spec, old.Spec) {
		pod.Generation++
	}
}

// preparePodStatus keeps what a status update may not touch: the spec, the owners and the deletion, and, where the
// writer left them out, the QoS class and the observed generations.
func preparePodStatus(pod, old *api.Pod) {
	pod.Spec = *old.Spec.DeepCopy()
	pod.DeletionTimestamp = nil // the registry carries it over from the stored object
	pod.OwnerReferences = append([]metav1.OwnerReference(nil), old.OwnerReferences...)
	if pod.Status.QOSClass == "" {
		pod.Status.QOSClass = old.Status.QOSClass
	}
	if pod.Status.ObservedGeneration == 0 {
		pod.Status.ObservedGeneration = old.Status.ObservedGeneration
	}
	seen := map[api.PodConditionType][]int64{} // a list, because a type may occur more than once
	for _, c := range old.Status.Conditions {
		seen[c.Type] = append(seen[c.Type], c.ObservedGeneration)
	}
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		var before int64
		if list := seen[c.Type]; len(list) > 0 {
			before, seen[c.Type] = list[0], list[1:]
		}
		if c.ObservedGeneration == 0 {
			c.ObservedGeneration = before
		}
	}
	podutil.DropDisabledPodFields(pod, old)
}

func podWarnings(ctx context.Context, pod *api.Pod) []string {
	var out []string
	if msgs := utilvalidation.IsDNS1123Label(pod.Name); len(msgs) != 0 {
		out = append(out, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", msgs))
	}
	return append(out, podutil.GetWarningsForPod(ctx, pod, nil)...)
}

func podStatusWarnings(_ context.Context, pod, _ *api.Pod) []string {
	var out []string
	for i, ip := range pod.Status.PodIPs {
		out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("status", "podIPs").Index(i).Child("ip"), ip.IP)...)
	}
	for i, ip := range pod.Status.HostIPs {
		out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("status", "hostIPs").Index(i).Child("ip"), ip.IP)...)
	}
	return out
}

// podGrace returns 0 for a pod that no node runs, and otherwise the seconds asked for, or the pod's own.
func podGrace(obj kube.Object, opts *metav1.DeleteOptions) int64 {
	pod := obj.(*corev1.Pod)
	var seconds int64
	switch {
	case opts != nil && opts.GracePeriodSeconds != nil:
		seconds = *opts.GracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		seconds = 0
	}
	if seconds < 0 {
		seconds = 1
	}
	if opts != nil {
		opts.GracePeriodSeconds = &seconds
	}
	return seconds
}

func podFields(obj kube.Object, s fields.Set) {
	pod := obj.(*corev1.Pod)
	s["spec.nodeName"] = pod.Spec.NodeName
	s["spec.restartPolicy"] = string(pod.Spec.RestartPolicy)
	s["spec.schedulerName"] = pod.Spec.SchedulerName
	s["spec.serviceAccountName"] = pod.Spec.ServiceAccountName
	s["spec.hostNetwork"] = strconv.FormatBool(pod.Spec.HostNetwork)
	s["status.phase"] = string(pod.Status.Phase)
	s["status.podIP"] = pod.Status.PodIP
	s["status.nominatedNodeName"] = pod.Status.NominatedNodeName
}

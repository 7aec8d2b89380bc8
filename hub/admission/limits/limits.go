// Package limits holds new pods and claims to the LimitRanges of their namespace, as upstream's LimitRanger does: containers get
// the defaults that they leave open, then each minimum, maximum and ratio is checked. Refusals have upstream's texts.
package limits

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// annotation of a pod holds what a LimitRange has set of it.
const annotation = "kubernetes.io/limit-ranger"

// Ranges reads the LimitRanges of a namespace.
type Ranges struct{ objects control.Reader }

// New returns the two steps, which read LimitRanges from objects.
func New(objects control.Reader) *Ranges { return &Ranges{objects} }

// Default gives the containers of a new pod what they leave open and a LimitRange has a default for.
func (r *Ranges) Default(_ context.Context, a *registry.AdmissionRequest) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !concerns(a) {
		return nil
	}
	for _, lr := range r.of(a) {
		requests, limits := defaults(lr)
		var set []string
		for i := range pod.Spec.Containers {
			set = complete(&pod.Spec.Containers[i], "container", requests, limits, set)
		}
		for i := range pod.Spec.InitContainers {
			set = complete(&pod.Spec.InitContainers[i], "init container", requests, limits, set)
		}
		if len(set) > 0 {
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			pod.Annotations[annotation] = "LimitRanger plugin set: " + strings.Join(set, "; ")
		}
	}
	return nil
}

// Check refuses a pod or a claim outside of what a LimitRange allows.
func (r *Ranges) Check(_ context.Context, a *registry.AdmissionRequest) error {
	if !concerns(a) {
		return nil
	}
	var check func(*corev1.LimitRange) []error
	switch obj := a.Object.(type) {
	case *corev1.Pod:
		check = func(lr *corev1.LimitRange) []error { return checkPod(lr, obj) }
	case *corev1.PersistentVolumeClaim:
		check = func(lr *corev1.LimitRange) []error { return checkClaim(lr, obj) }
	default:
		return nil
	}
	for _, lr := range r.of(a) {
		if err := utilerrors.NewAggregate(check(lr)); err != nil {
			return refuse.Forbidden(a, err)
		}
	}
	return nil
}

// of returns the LimitRanges of the write's namespace.
func (r *Ranges) of(a *registry.AdmissionRequest) []*corev1.LimitRange {
	return control.List[*corev1.LimitRange](r.objects, kube.LimitRange, a.Object.GetNamespace())
}

// concerns reports whether a may change the resources of a pod or a claim: containers are fixed once a pod exists, except
// through its resize subresource. What is being deleted may be updated whatever its resources.
func concerns(a *registry.AdmissionRequest) bool {
	if a.Object == nil || a.Old != nil && a.Old.GetDeletionTimestamp() != nil {
		return false
	}
	switch a.Object.(type) {
	case *corev1.Pod:
		return a.Subresource == "" && a.Operation == registry.OpCreate || a.Subresource == "resize" && a.Operation == registry.OpUpdate
	case *corev1.PersistentVolumeClaim:
		return a.Subresource == "" && (a.Operation == registry.OpCreate || a.Operation == registry.OpUpdate)
	}
	return false
}

// defaults returns the default requests and limits of a container.
func defaults(lr *corev1.LimitRange) (requests, limits corev1.ResourceList) {
	requests, limits = corev1.ResourceList{}, corev1.ResourceList{}
	for _, l := range lr.Spec.Limits {
		if l.Type == corev1.LimitTypeContainer {
			maps.Copy(requests, l.DefaultRequest)
			maps.Copy(limits, l.Default)
		}
	}
	return requests, limits
}

// complete sets what the container leaves open, and adds to set what that was.
func complete(c *corev1.Container, what string, requests, limits corev1.ResourceList, set []string) []string {
	set = fill(&c.Resources.Requests, requests, "request for "+what+" "+c.Name, set)
	return fill(&c.Resources.Limits, limits, "limit for "+what+" "+c.Name, set)
}

// fill sets those of the defaults that list does not have.
func fill(list *corev1.ResourceList, defaults corev1.ResourceList, what string, set []string) []string {
	var names []string
	for name, value := range defaults {
		if _, ok := (*list)[name]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = value.DeepCopy()
		names = append(names, string(name))
	}
	if len(names) == 0 {
		return set
	}
	slices.Sort(names)
	return append(set, fmt.Sprintf("%s %s", strings.Join(names, ", "), what))
}

package limits

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/internal/kube"
)

// checkPod returns all in which the pod is outside of the range: its containers one by one, and the pod as a whole.
func checkPod(lr *corev1.LimitRange, pod *corev1.Pod) (errs []error) {
	for i := range lr.Spec.Limits {
		l := &lr.Spec.Limits[i]
		switch l.Type {
		case corev1.LimitTypeContainer:
			for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
				for _, c := range list {
					errs = append(errs, check(l, c.Resources.Requests, c.Resources.Limits)...)
				}
			}
		case corev1.LimitTypePod:
			requests, limits := kube.PodSpecResources(pod)
			errs = append(errs, check(l, requests, limits)...)
		}
	}
	return errs
}

// checkClaim returns all in which the claim asks for too little or too much. Claims have requests only.
func checkClaim(lr *corev1.LimitRange, claim *corev1.PersistentVolumeClaim) (errs []error) {
	for _, l := range lr.Spec.Limits {
		if l.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		requests := claim.Spec.Resources.Requests
		for _, name := range names(l.Min) {
			errs = add(errs, atLeast(l.Type, name, l.Min[name], requests, nil))
		}
		for _, name := range names(l.Max) {
			asked, ok := requests[name]
			most := l.Max[name]
			switch {
			case !ok:
				errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, l.Type, most.String()))
			case asked.Cmp(most) > 0:
				errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, l.Type, most.String(), asked.String()))
			}
		}
	}
	return errs
}

// check returns all in which requests and limits are outside of one entry of a range, in the order of the resources' names.
func check(l *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	for _, name := range names(l.Min) {
		errs = add(errs, atLeast(l.Type, name, l.Min[name], requests, limits))
	}
	for _, name := range names(l.Max) {
		errs = add(errs, atMost(l.Type, name, l.Max[name], requests, limits))
	}
	for _, name := range names(l.MaxLimitRequestRatio) {
		errs = add(errs, withinRatio(l.Type, name, l.MaxLimitRequestRatio[name], requests, limits))
	}
	return errs
}

func names(list corev1.ResourceList) []corev1.ResourceName { return slices.Sorted(maps.Keys(list)) }

func add(errs []error, err error) []error {
	if err != nil {
		return append(errs, err)
	}
	return errs
}

func atLeast(of corev1.LimitType, name corev1.ResourceName, least resource.Quantity, requests, limits corev1.ResourceList) error {
	asked, ok := requests[name]
	if !ok {
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, of, least.String())
	}
	if asked.Cmp(least) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, of, least.String(), asked.String())
	}
	if limit, ok := limits[name]; ok && limit.Cmp(least) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, of, least.String(), limit.String())
	}
	return nil
}

func atMost(of corev1.LimitType, name corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	limit, ok := limits[name]
	if !ok {
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, of, most.String())
	}
	if limit.Cmp(most) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, of, most.String(), limit.String())
	}
	if asked, ok := requests[name]; ok && asked.Cmp(most) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, of, most.String(), asked.String())
	}
	return nil
}

func withinRatio(of corev1.LimitType, name corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	asked, limit := requests[name], limits[name]
	if asked.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, of, most.String())
	}
	if limit.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, of, most.String())
	}
	if ratio := limit.AsApproximateFloat64() / asked.AsApproximateFloat64(); ratio > most.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, of, most.String(), ratio)
	}
	return nil
}

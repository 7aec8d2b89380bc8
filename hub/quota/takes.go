package quota

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/kube"
)

// Refusal is why a quota does not let a write through, in upstream's words.
type Refusal struct{ text string }

func (r *Refusal) Error() string { return r.text }

func exceeded(quota string, asked, used, limit corev1.ResourceList) string {
	return fmt.Sprintf("exceeded quota: %s, requested: %s, used: %s, limited: %s", quota, Text(asked), Text(used), Text(limit))
}

// takes returns what a write adds to the quota's usage, nothing when the quota is not about it. whole is what the object takes
// once it is written.
func (c counter) takes(q *corev1.ResourceQuota, w Write, whole corev1.ResourceList, now time.Time) (corev1.ResourceList, error) {
	scopes := scopesOf(q)
	limited := corev1.ResourceList{}
	for name := range q.Spec.Hard {
		if c.limits(name) {
			limited[name] = whole[name]
		}
	}
	if len(limited) == 0 || !c.covers(scopes, w.New) {
		return nil, nil
	}
	if pod, ok := w.New.(*corev1.Pod); ok {
		if err := missing(q.Spec.Hard, pod); err != nil {
			return nil, &Refusal{fmt.Sprintf("failed quota: %s: %v", q.Name, err)}
		}
	}
	var before corev1.ResourceList
	if w.Old != nil && c.covers(scopes, w.Old) {
		before = c.usage(w.Old, now)
	}
	for name, v := range limited {
		if v.Sign() < 0 {
			return nil, &Refusal{fmt.Sprintf("quota usage is negative for resource(s): %s", name)}
		}
	}
	return beyond(limited, before), nil
}

// Concerns reports whether a write may add to what quotas count: creations of anything, and of some kinds updates and one
// subresource.
func Concerns(gr schema.GroupResource, create bool, subresource string, obj, old kube.Object) bool {
	switch gr {
	case corev1.Resource("pods"):
		if subresource == "resize" {
			return !create
		}
		pod, ok := obj.(*corev1.Pod)
		was, had := old.(*corev1.Pod)
		return subresource == "" && (create || ok && had && terminates(pod) != terminates(was))
	case corev1.Resource("services"), corev1.Resource("persistentvolumeclaims"):
		return subresource == ""
	case corev1.Resource("events"):
		return false // short-lived, and bounded otherwise
	}
	return create && subresource == ""
}

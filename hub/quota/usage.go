package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"

	"petrel.dev/petrel/internal/kube"
)

// counter is how objects of one kind are counted.
type counter struct {
	resource schema.GroupResource
	// limits reports whether a quota limits objects of the kind by this name.
	limits func(name corev1.ResourceName) bool
	// usage returns what an object takes.
	usage func(obj kube.Object, now time.Time) corev1.ResourceList
	// inScope reports whether an object belongs to a scope; nil: to none.
	inScope func(obj kube.Object, s corev1.ScopedResourceSelectorRequirement) bool
}

// special are the kinds of which more is counted than how many there are.
var special = map[schema.GroupResource]counter{
	corev1.Resource("pods"):                   {corev1.Resource("pods"), limitsPods, podUsage, podInScope},
	corev1.Resource("services"):               {corev1.Resource("services"), limitsServices, serviceUsage, nil},
	corev1.Resource("persistentvolumeclaims"): {corev1.Resource("persistentvolumeclaims"), limitsClaims, claimUsage, claimInScope},
}

// plain are the kinds that a quota may also name by their plural, without "count/".
var plain = map[schema.GroupResource]bool{
	corev1.Resource("configmaps"): true, corev1.Resource("secrets"): true, corev1.Resource("resourcequotas"): true,
	corev1.Resource("replicationcontrollers"): true,
}

const countPrefix = "count/"

// countName is by which a quota limits how many objects of any kind there are.
func countName(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName(countPrefix + gr.String())
}

// counterOf returns how objects of a kind are counted.
func counterOf(gr schema.GroupResource) counter {
	if c, ok := special[gr]; ok {
		return c
	}
	names := map[corev1.ResourceName]bool{countName(gr): true}
	if plain[gr] {
		names[corev1.ResourceName(gr.Resource)] = true
	}
	return counter{
		resource: gr,
		limits:   func(name corev1.ResourceName) bool { return names[name] },
		usage: func(kube.Object, time.Time) corev1.ResourceList {
			out := corev1.ResourceList{}
			for name := range names {
				out[name] = one()
			}
			return out
		},
	}
}

// counted returns the kinds that a quota with these limits is about.
func counted(hard corev1.ResourceList) map[schema.GroupResource]bool {
	out := map[schema.GroupResource]bool{}
	for name := range hard {
		if gr, ok := strings.CutPrefix(string(name), countPrefix); ok {
			out[schema.ParseGroupResource(gr)] = true
		} else if gr := corev1.Resource(string(name)); plain[gr] {
			out[gr] = true
		}
		for gr, c := range special {
			if c.limits(name) {
				out[gr] = true
			}
		}
	}
	return out
}

// scopesOf returns all scopes that an object must belong to for a quota to count it.
func scopesOf(q *corev1.ResourceQuota) []corev1.ScopedResourceSelectorRequirement {
	var out []corev1.ScopedResourceSelectorRequirement
	for _, s := range q.Spec.Scopes {
		out = append(out, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		out = append(out, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return out
}

// covers reports whether a quota with these scopes counts the object.
func (c counter) covers(scopes []corev1.ScopedResourceSelectorRequirement, obj kube.Object) bool {
	for _, s := range scopes {
		if c.inScope == nil || !c.inScope(obj, s) {
			return false
		}
	}
	return true
}

// selects reports whether the scope's values select one of the names that an object has for it.
func selects(s corev1.ScopedResourceSelectorRequirement, names ...string) bool {
	op, ok := map[corev1.ScopeSelectorOperator]selection.Operator{
		corev1.ScopeSelectorOpIn: selection.In, corev1.ScopeSelectorOpNotIn: selection.NotIn,
		corev1.ScopeSelectorOpExists: selection.Exists, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}[s.Operator]
	if !ok {
		return false
	}
	r, err := labels.NewRequirement(string(s.ScopeName), op, s.Values)
	if err != nil {
		return false // validation refuses it
	}
	if len(names) == 0 {
		return r.Matches(labels.Set{})
	}
	for _, name := range names {
		if r.Matches(labels.Set{string(s.ScopeName): name}) {
			return true
		}
	}
	return false
}

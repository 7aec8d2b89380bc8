package match

import (
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Scope is which writes a webhook or a policy concerns. It is immutable.
type Scope struct {
	namespaces, objects labels.Selector
	rules, excluded     []admissionregistrationv1.NamedRuleWithOperations
	// equivalent says that a rule about one version of a resource is about all of them.
	equivalent bool
	// everything says that there are no rules because all writes are meant.
	everything bool
}

// Hit is the version in which a write is shown, because the Scope's rules name it.
type Hit struct {
	Resource schema.GroupVersionResource
	Kind     schema.GroupVersionKind
}

// Webhook returns the Scope of a webhook.
func Webhook(ruleList []admissionregistrationv1.RuleWithOperations, policy *admissionregistrationv1.MatchPolicyType, namespaces, objects *metav1.LabelSelector) (*Scope, error) {
	r := admissionregistrationv1.MatchResources{NamespaceSelector: namespaces, ObjectSelector: objects, MatchPolicy: policy}
	for _, rule := range ruleList {
		r.ResourceRules = append(r.ResourceRules, admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: rule})
	}
	s, err := Resources(&r)
	if s != nil {
		s.everything = false
	}
	return s, err
}

// Resources returns the Scope of a policy or of its binding.
func Resources(r *admissionregistrationv1.MatchResources) (*Scope, error) {
	s := &Scope{
		rules: r.ResourceRules, excluded: r.ExcludeResourceRules, everything: len(r.ResourceRules) == 0,
		equivalent: r.MatchPolicy != nil && *r.MatchPolicy == admissionregistrationv1.Equivalent,
	}
	if r.NamespaceSelector == nil {
		return nil, fmt.Errorf("a nil %s selector was passed, please ensure selectors are initialized properly", "namespace")
	}
	if r.ObjectSelector == nil {
		return nil, fmt.Errorf("a nil %s selector was passed, please ensure selectors are initialized properly", "object")
	}
	var err error
	if s.namespaces, err = metav1.LabelSelectorAsSelector(r.NamespaceSelector); err != nil {
		return nil, err
	}
	if s.objects, err = metav1.LabelSelectorAsSelector(r.ObjectSelector); err != nil {
		return nil, err
	}
	return s, nil
}

// Match reports whether w is in the scope, and in which version. An error is a Status: whether w is in the scope is not known.
func (s *Scope) Match(w *Write) (h Hit, ok bool, err error) {
	in, unknown := s.inNamespace(w) // an error counts only when all else matches
	if !in && unknown == nil || !s.selects(w) {
		return Hit{}, false, nil
	}
	if _, out := s.find(w, s.excluded); out {
		return Hit{}, false, nil
	}
	h, ok = Hit{w.GetResource(), w.GetKind()}, true
	if !s.everything {
		h, ok = s.find(w, s.rules)
	}
	if !ok {
		return Hit{}, false, nil
	}
	return h, unknown == nil, unknown
}

// selects reports whether the object's labels match, before the write or after it.
func (s *Scope) selects(w *Write) bool {
	return s.objects.Empty() || labelled(w.GetObject(), s.objects) || labelled(w.GetOldObject(), s.objects)
}

func labelled(obj runtime.Object, sel labels.Selector) bool {
	if obj == nil {
		return false
	}
	m, err := meta.Accessor(obj)
	return err == nil && sel.Matches(labels.Set(m.GetLabels()))
}

// inNamespace reports whether the labels of the write's namespace match. What is in none is never exempt.
func (s *Scope) inNamespace(w *Write) (bool, error) {
	name := w.GetNamespace()
	if name == "" && w.request.Kind.GVK != kube.Namespace || s.namespaces.Empty() {
		return true, nil
	}
	if w.request.Kind.GVK == kube.Namespace && w.GetSubresource() == "" && w.request.Object != nil {
		return s.namespaces.Matches(labels.Set(w.request.Object.GetLabels())), nil
	}
	ns, err := w.Namespace(name)
	if err != nil {
		return false, err
	}
	return s.namespaces.Matches(labels.Set(ns.Labels)), nil
}

// Namespace returns a Namespace, shared: read-only. The error is the Status of one that does not exist.
func (w *Write) Namespace(name string) (*corev1.Namespace, error) {
	ns, ok := control.Get[*corev1.Namespace](w.objects, kube.Namespace, "", name)
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	return ns, nil
}

// find returns the version in which the first matching rule names the write: the write's own if any rule does.
func (s *Scope) find(w *Write, list []admissionregistrationv1.NamedRuleWithOperations) (Hit, bool) {
	for i := range list {
		if names(&list[i], w, w) {
			return Hit{w.GetResource(), w.GetKind()}, true
		}
	}
	if !s.equivalent || len(list) == 0 {
		return Hit{}, false
	}
	stored := w.request.As.Stored()
	for i := range list {
		for _, k := range w.kinds.All() {
			if k.Stored().GVK == stored.GVK && k.GVK != w.request.As.GVK && names(&list[i], other{w, k.GVR()}, w) {
				return Hit{k.GVR(), w.kindOf(k)}, true
			}
		}
	}
	return Hit{}, false
}

// names reports whether a rule is about a write of a, and of that name.
func names(rule *admissionregistrationv1.NamedRuleWithOperations, a admission.Attributes, w *Write) bool {
	m := rules.Matcher{Rule: rule.RuleWithOperations, Attr: a}
	return m.Matches() && (len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, w.GetName()))
}

// other is a write in another version of its resource.
type other struct {
	*Write
	resource schema.GroupVersionResource
}

// GetResource implements admission.Attributes.
func (o other) GetResource() schema.GroupVersionResource { return o.resource }

// Configures reports whether the write is of what configures admission. Upstream exempts such writes from webhooks, so that a webhook
// cannot stop its own removal.
func (w *Write) Configures() bool { return rules.IsExemptAdmissionConfigurationResource(w) }

// Package webhook asks the admission webhooks that users have configured about a write: mutating ones one after another, each of
// which sees what those before it made of the object, then validating ones all at once.
//
//	configurations ─► Set (compiled once) ─┐
//	match.Write ───────────────────────────┴► Caller ─► scope ─► match conditions ─► AdmissionReview ─► hub/webhook
//	            ◄── patch, refusal, warnings, audit annotations ◄───────────────────────────────────────────┘
//
// A webhook that cannot be asked, or answers nonsense, is what its failure policy says; its time, the size of its answer and the
// cost of its patch are bounded. Texts are upstream's.
package webhook

import (
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/celbound"
	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/kube"
)

// The types of webhooks, as metrics name them.
const (
	typeMutating   = "admit"
	typeValidating = "validating"
)

// Set is all configured webhooks, in the order in which they are asked: by configuration name, then as in it. It is immutable,
// except that match conditions are compiled when they are first needed.
type Set struct {
	mutating, validating []*group
	room                 *celbound.Budget // for compiled match conditions
}

// Empty reports whether no webhook is configured.
func (s *Set) Empty() bool { return s == nil || len(s.mutating)+len(s.validating) == 0 }

// group is the webhooks of one configuration. It is made again when the configuration changes.
type group struct {
	of    any // the configuration: its pointer is the same as long as it has not changed
	hooks []*hook
}

// hook is one webhook.
type hook struct {
	name, configuration string
	key                 string // unique in its Set
	kind                string // typeMutating or typeValidating
	index               int    // in its configuration
	scope               *match.Scope
	broken              error // why there is no scope
	conditions          []admissionregistrationv1.MatchCondition
	target              webhook.Target
	fails               admissionregistrationv1.FailurePolicyType
	timeout             time.Duration // 0: the request's
	sideEffects         *admissionregistrationv1.SideEffectClass
	versions            []string // of AdmissionReview
	again               bool     // it wants to run again when others changed the object after it

	matcher celbound.Kept[matchconditions.Matcher]
}

// NewSet returns the webhooks of all configurations, which come in the order of their names. What is unchanged since the last set,
// which may be nil, is taken from it.
func NewSet(last *Set, mutating []*admissionregistrationv1.MutatingWebhookConfiguration, validating []*admissionregistrationv1.ValidatingWebhookConfiguration) *Set {
	if last == nil {
		last = &Set{room: &celbound.Budget{}}
	}
	s := &Set{
		mutating:   groups(last.mutating, mutating, mutatingHooks),
		validating: groups(last.validating, validating, validatingHooks),
		room:       &celbound.Budget{},
	}
	if slices.Equal(s.mutating, last.mutating) && slices.Equal(s.validating, last.validating) {
		return last
	}
	for _, g := range slices.Concat(s.mutating, s.validating) {
		for _, h := range g.hooks {
			h.matcher.Carry(s.room)
		}
	}
	return s
}

// groups returns the group of each configuration: the last one, if it is of the same.
func groups[C comparable](last []*group, configurations []C, hooks func(C) []*hook) []*group {
	if slices.EqualFunc(last, configurations, func(g *group, c C) bool { return g.of == any(c) }) {
		return last
	}
	known := map[any]*group{}
	for _, g := range last {
		known[g.of] = g
	}
	out := make([]*group, 0, len(configurations))
	for _, c := range configurations {
		g := known[c]
		if g == nil {
			g = &group{of: c, hooks: hooks(c)}
		}
		out = append(out, g)
	}
	return out
}

func mutatingHooks(c *admissionregistrationv1.MutatingWebhookConfiguration) []*hook {
	hooks := make([]*hook, len(c.Webhooks))
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		h := &hook{
			name: w.Name, configuration: c.Name, kind: typeMutating, index: i, conditions: w.MatchConditions,
			target: target(&w.ClientConfig), sideEffects: w.SideEffects, versions: w.AdmissionReviewVersions,
			again: w.ReinvocationPolicy != nil && *w.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy,
		}
		h.scope, h.broken = match.Webhook(w.Rules, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector)
		h.finish(w.FailurePolicy, w.TimeoutSeconds)
		hooks[i] = h
	}
	return hooks
}

func validatingHooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) []*hook {
	hooks := make([]*hook, len(c.Webhooks))
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		h := &hook{
			name: w.Name, configuration: c.Name, kind: typeValidating, index: i, conditions: w.MatchConditions,
			target: target(&w.ClientConfig), sideEffects: w.SideEffects, versions: w.AdmissionReviewVersions,
		}
		h.scope, h.broken = match.Webhook(w.Rules, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector)
		h.finish(w.FailurePolicy, w.TimeoutSeconds)
		hooks[i] = h
	}
	return hooks
}

// finish sets what both types have in common.
func (h *hook) finish(failure *admissionregistrationv1.FailurePolicyType, seconds *int32) {
	h.key = fmt.Sprintf("%s/%s/%d", h.configuration, h.name, h.index)
	h.fails = admissionregistrationv1.Fail
	if failure != nil {
		h.fails = *failure
	}
	if seconds != nil {
		h.timeout = kube.Seconds(int64(*seconds))
	}
}

// target returns where a webhook is.
func target(c *admissionregistrationv1.WebhookClientConfig) webhook.Target {
	t := webhook.Target{CABundle: string(c.CABundle)}
	if c.URL != nil {
		t.URL = *c.URL
	}
	if s := c.Service; s != nil {
		t.Namespace, t.Name = s.Namespace, s.Name
		if s.Path != nil {
			t.Path = *s.Path
		}
		if s.Port != nil {
			t.Port = *s.Port
		}
	}
	return t
}

// conditionMatcher returns what evaluates the hook's match conditions. They have been compiled before, when they were stored; so an
// error here shows when they are evaluated. room bounds what is kept.
func (h *hook) conditionMatcher(room *celbound.Budget) matchconditions.Matcher {
	sources := make([]string, len(h.conditions))
	for i, c := range h.conditions {
		sources[i] = c.Expression
	}
	return h.matcher.Get(room, celbound.Weight(sources...), func() matchconditions.Matcher {
		expressions := make([]plugincel.ExpressionAccessor, len(h.conditions))
		for i := range h.conditions {
			expressions[i] = (*matchconditions.MatchCondition)(&h.conditions[i])
		}
		compiler := plugincel.NewConditionCompiler(celbound.Install())
		evaluator := compiler.CompileCondition(expressions, plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.StoredExpressions)
		return matchconditions.NewMatcher(evaluator, &h.fails, "webhook", h.kind, h.name)
	})
}

// Package policy evaluates the admission policies that users have configured: MutatingAdmissionPolicies, then
// ValidatingAdmissionPolicies. Their expressions are CEL, compiled and evaluated by upstream's libraries.
//
//	policies, bindings ─► Set (a policy is compiled when a write first concerns it) ─┐
//	match.Write ─────────────────────────────────────────────────────────────────────┴► Evaluator ─► params ─► expressions
//	            ◄── changed object, refusal, warnings, audit annotations ◄───────────────────────────────────────┘
//
// A policy that no binding refers to does nothing. What an evaluation may cost is bounded by upstream's limits; what all that concern a
// write may cost together by the request's time.
package policy

import (
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/celbound"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Set is all configured policies with their bindings, in the order of their names. It is immutable, except that policies are
// compiled when they are first needed.
type Set struct {
	from                 sources
	validating, mutating []*policy
	room                 *celbound.Budget // for compiled policies
}

// sources is what a Set was made of, in the order of names.
type sources struct {
	validating         []*admissionregistrationv1.ValidatingAdmissionPolicy
	validatingBindings []*admissionregistrationv1.ValidatingAdmissionPolicyBinding
	mutating           []*admissionregistrationv1.MutatingAdmissionPolicy
	mutatingBindings   []*admissionregistrationv1.MutatingAdmissionPolicyBinding
}

// Empty reports whether nothing is configured.
func (s *Set) Empty() bool {
	return s == nil || len(s.from.validating)+len(s.from.validatingBindings)+len(s.from.mutating)+len(s.from.mutatingBindings) == 0
}

// policy is one policy with its bindings.
type policy struct {
	*definition
	bindings []*binding
}

// definition is a policy without its bindings. It is made again when the policy changes.
type definition struct {
	of         any // the policy: its pointer is the same as long as it has not changed
	name       string
	scope      *match.Scope
	broken     error // why there is no scope
	params     *admissionregistrationv1.ParamKind
	fails      admissionregistrationv1.FailurePolicyType
	validating *admissionregistrationv1.ValidatingAdmissionPolicy // nil for a mutating one
	mutating   *admissionregistrationv1.MutatingAdmissionPolicy   // nil for a validating one

	kept celbound.Kept[compiled]
}

// binding is where a policy holds, with which params, and what a refusal does.
type binding struct {
	of      any
	name    string
	scope   *match.Scope // nil: wherever the policy holds
	broken  error
	params  *admissionregistrationv1.ParamRef
	actions []admissionregistrationv1.ValidationAction // of a validating one
}

// NewSet returns what is configured now. What is unchanged since the last set, which may be nil, is taken from it.
func NewSet(last *Set, objects control.Reader) *Set {
	now := sources{
		validating:         control.List[*admissionregistrationv1.ValidatingAdmissionPolicy](objects, kube.ValidatingAdmissionPolicy, ""),
		validatingBindings: control.List[*admissionregistrationv1.ValidatingAdmissionPolicyBinding](objects, kube.ValidatingAdmissionPolicyBinding, ""),
		mutating:           control.List[*admissionregistrationv1.MutatingAdmissionPolicy](objects, kube.MutatingAdmissionPolicy, ""),
		mutatingBindings:   control.List[*admissionregistrationv1.MutatingAdmissionPolicyBinding](objects, kube.MutatingAdmissionPolicyBinding, ""),
	}
	if last == nil {
		last = &Set{}
	}
	if now.same(&last.from) {
		return last
	}
	return newSet(last, now)
}

// same reports whether nothing has changed between two moments: objects are replaced, never changed.
func (s *sources) same(old *sources) bool {
	return slices.Equal(s.validating, old.validating) && slices.Equal(s.validatingBindings, old.validatingBindings) &&
		slices.Equal(s.mutating, old.mutating) && slices.Equal(s.mutatingBindings, old.mutatingBindings)
}

func newSet(last *Set, now sources) *Set {
	definitions, bindings := map[any]*definition{}, map[any]*binding{}
	for _, p := range slices.Concat(last.validating, last.mutating) {
		definitions[p.of] = p.definition
		for _, b := range p.bindings {
			bindings[b.of] = b
		}
	}
	s := &Set{from: now, room: &celbound.Budget{}}
	s.validating = join(now.validating, now.validatingBindings, definitions, bindings, defineValidating, bindValidating,
		func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
	s.mutating = join(now.mutating, now.mutatingBindings, definitions, bindings, defineMutating, bindMutating,
		func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
	for _, p := range slices.Concat(s.validating, s.mutating) {
		p.kept.Carry(s.room)
	}
	return s
}

// join returns the policies that have bindings. What was defined before is taken from definitions and bindings.
func join[P, B kube.Object](policies []P, list []B, definitions map[any]*definition, bindings map[any]*binding,
	define func(P) *definition, bind func(B) *binding, policyName func(B) string) (out []*policy) {
	byPolicy := map[string][]*binding{}
	for _, b := range list {
		known := bindings[b]
		if known == nil {
			known = bind(b)
		}
		byPolicy[policyName(b)] = append(byPolicy[policyName(b)], known)
	}
	for _, p := range policies {
		bound := byPolicy[p.GetName()]
		if len(bound) == 0 {
			continue
		}
		known := definitions[p]
		if known == nil {
			known = define(p)
		}
		out = append(out, &policy{known, bound})
	}
	return out
}

func defineValidating(p *admissionregistrationv1.ValidatingAdmissionPolicy) *definition {
	d := &definition{of: p, name: p.Name, params: p.Spec.ParamKind, validating: p}
	d.limit(p.Spec.MatchConstraints, p.Spec.FailurePolicy)
	return d
}

func defineMutating(p *admissionregistrationv1.MutatingAdmissionPolicy) *definition {
	d := &definition{of: p, name: p.Name, params: p.Spec.ParamKind, mutating: p}
	d.limit(p.Spec.MatchConstraints, p.Spec.FailurePolicy)
	return d
}

// limit sets what both types have in common.
func (d *definition) limit(r *admissionregistrationv1.MatchResources, failure *admissionregistrationv1.FailurePolicyType) {
	d.fails = admissionregistrationv1.Fail
	if failure != nil {
		d.fails = *failure
	}
	if r == nil {
		d.broken = fmt.Errorf("policy contained no match constraints, a required field")
		return
	}
	d.scope, d.broken = match.Resources(r)
}

func bindValidating(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) *binding {
	out := &binding{of: b, name: b.Name, params: b.Spec.ParamRef, actions: b.Spec.ValidationActions}
	if b.Spec.MatchResources != nil {
		out.scope, out.broken = match.Resources(b.Spec.MatchResources)
	}
	return out
}

func bindMutating(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) *binding {
	out := &binding{of: b, name: b.Name, params: b.Spec.ParamRef}
	if b.Spec.MatchResources != nil {
		out.scope, out.broken = match.Resources(b.Spec.MatchResources)
	}
	return out
}

// matches reports whether the binding is about the write.
func (b *binding) matches(w *match.Write) (bool, error) {
	if b.broken != nil || b.scope == nil {
		return b.broken == nil, b.broken
	}
	_, ok, err := b.scope.Match(w)
	return ok, err
}

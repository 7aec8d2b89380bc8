package policy

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"

	"petrel.dev/petrel/hub/celbound"
)

// compiled is a policy whose expressions are compiled: one of the two.
type compiled struct {
	validator validating.Validator
	mutator   *mutator
}

// compiled returns the expressions of the policy, compiled. They were compiled once before, when the policy was stored: an expression that
// does not compile now is an error of the evaluation, which the failure policy decides about. room bounds what is kept.
func (d *definition) compiled(room *celbound.Budget) compiled {
	return d.kept.Get(room, celbound.Weight(d.expressions()...), func() compiled {
		if d.validating != nil {
			return compiled{validator: compileValidating(d.validating)}
		}
		return compiled{mutator: compileMutating(d.mutating)}
	})
}

// expressions returns the sources of all that is compiled of the policy.
func (d *definition) expressions() (all []string) {
	variables, conditions := []admissionregistrationv1.Variable(nil), []admissionregistrationv1.MatchCondition(nil)
	if p := d.validating; p != nil {
		variables, conditions = p.Spec.Variables, p.Spec.MatchConditions
		for _, v := range p.Spec.Validations {
			if all = append(all, v.Expression); v.MessageExpression != "" {
				all = append(all, v.MessageExpression)
			}
		}
		for _, a := range p.Spec.AuditAnnotations {
			all = append(all, a.ValueExpression)
		}
	}
	if p := d.mutating; p != nil {
		variables, conditions = p.Spec.Variables, p.Spec.MatchConditions
		for _, m := range p.Spec.Mutations {
			if m.JSONPatch != nil {
				all = append(all, m.JSONPatch.Expression)
			} else if m.ApplyConfiguration != nil {
				all = append(all, m.ApplyConfiguration.Expression)
			}
		}
	}
	for _, v := range variables {
		all = append(all, v.Expression)
	}
	for _, c := range conditions {
		all = append(all, c.Expression)
	}
	return all
}

// newCompiler returns a compiler with the policy's variables. Its environments are some megabytes; nothing keeps it.
func newCompiler(variables []admissionregistrationv1.Variable, options plugincel.OptionalVariableDeclarations) (*plugincel.CompositedCompiler, error) {
	c, err := plugincel.NewCompositedCompiler(celbound.Install())
	if err != nil {
		return nil, err
	}
	for _, v := range variables {
		c.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, options, environment.StoredExpressions)
	}
	return c, nil
}

// compileConditions returns what evaluates match conditions; nil for none.
func compileConditions(c *plugincel.CompositedCompiler, conditions []admissionregistrationv1.MatchCondition,
	options plugincel.OptionalVariableDeclarations, failure *admissionregistrationv1.FailurePolicyType, name string) matchconditions.Matcher {
	if len(conditions) == 0 {
		return nil
	}
	expressions := make([]plugincel.ExpressionAccessor, len(conditions))
	for i := range conditions {
		expressions[i] = (*matchconditions.MatchCondition)(&conditions[i])
	}
	return matchconditions.NewMatcher(c.CompileCondition(expressions, options, environment.StoredExpressions), failure, "policy", "validate", name)
}

func compileValidating(p *admissionregistrationv1.ValidatingAdmissionPolicy) validating.Validator {
	options := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	forMessages := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil}
	c, err := newCompiler(p.Spec.Variables, options)
	if err != nil {
		return validating.NewValidator(nil, nil, nil, nil, p.Spec.FailurePolicy, err)
	}
	validations := make([]plugincel.ExpressionAccessor, len(p.Spec.Validations))
	messages := make([]plugincel.ExpressionAccessor, len(p.Spec.Validations)) // nil where the validation has none
	for i, v := range p.Spec.Validations {
		validations[i] = &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason}
		if v.MessageExpression != "" {
			messages[i] = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
	}
	annotations := make([]plugincel.ExpressionAccessor, len(p.Spec.AuditAnnotations))
	for i, a := range p.Spec.AuditAnnotations {
		annotations[i] = &validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression}
	}
	return validating.NewValidator(
		c.CompileCondition(validations, options, environment.StoredExpressions),
		compileConditions(c, p.Spec.MatchConditions, options, p.Spec.FailurePolicy, p.Name),
		c.CompileCondition(annotations, options, environment.StoredExpressions),
		c.CompileCondition(messages, forMessages, environment.StoredExpressions),
		p.Spec.FailurePolicy, nil)
}

// mutator is a compiled MutatingAdmissionPolicy.
type mutator struct {
	broken     error                   // why it could not be compiled
	conditions matchconditions.Matcher // nil: none
	patches    []patch.Patcher         // in the order of the mutations
	compiler   *plugincel.CompositedCompiler
}

// context returns one in which the mutator's expressions find its variables.
func (m *mutator) context(ctx context.Context) context.Context { return m.compiler.CreateContext(ctx) }

func compileMutating(p *admissionregistrationv1.MutatingAdmissionPolicy) *mutator {
	options := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	c, err := newCompiler(p.Spec.Variables, options)
	if err != nil {
		return &mutator{broken: err}
	}
	m := &mutator{compiler: c, conditions: compileConditions(c, p.Spec.MatchConditions, options, p.Spec.FailurePolicy, p.Name)}
	options.HasPatchTypes = true
	for i := range p.Spec.Mutations {
		switch mutation := &p.Spec.Mutations[i]; {
		case mutation.PatchType == admissionregistrationv1.PatchTypeJSONPatch && mutation.JSONPatch != nil:
			expression := &patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}
			m.patches = append(m.patches, patch.NewJSONPatcher(bounded{c.CompileMutatingEvaluator(expression, options, environment.StoredExpressions)}))
		case mutation.PatchType == admissionregistrationv1.PatchTypeApplyConfiguration && mutation.ApplyConfiguration != nil:
			expression := &patch.ApplyConfigurationCondition{Expression: mutation.ApplyConfiguration.Expression}
			m.patches = append(m.patches, patch.NewApplyConfigurationPatcher(bounded{c.CompileMutatingEvaluator(expression, options, environment.StoredExpressions)}))
		}
	}
	c.Compiler, c.ConditionCompiler, c.MutatingCompiler = nil, nil, nil // they hold the environments; only the variables are needed
	return m
}

package audit

import (
	"errors"
	"fmt"
	"os"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/apis/audit/validation"
	policies "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/auth"
)

// readPolicy reads a policy file. Unlike upstream it refuses fields that it does not know: what looks like a rule and is none would
// leave out what should be recorded.
func readPolicy(file string) (policies.PolicyRuleEvaluator, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, err := parsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return policy.NewPolicyRuleEvaluator(p), nil
}

func parsePolicy(text []byte) (*auditinternal.Policy, error) {
	var in auditv1.Policy
	if err := yaml.UnmarshalStrict(text, &in); err != nil {
		return nil, err
	}
	if in.APIVersion != auditv1.SchemeGroupVersion.String() || in.Kind != "Policy" {
		return nil, fmt.Errorf("it is a %s of %q, not a Policy of %s", in.Kind, in.APIVersion, auditv1.SchemeGroupVersion)
	}
	out := &auditinternal.Policy{}
	if err := auditv1.Convert_v1_Policy_To_audit_Policy(&in, out, nil); err != nil {
		return nil, err
	}
	if errs := validation.ValidatePolicy(out); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if len(out.Rules) == 0 {
		return nil, errors.New("it has no rules, so it records nothing")
	}
	return out, nil
}

// record returns a request in the form that upstream's rules are matched with.
func record(u auth.User, a auth.Attributes) authorizer.Attributes {
	return authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: u.Name, UID: u.UID, Groups: u.Groups}, Verb: a.Verb,
		Namespace: a.Namespace, APIGroup: a.APIGroup, APIVersion: a.APIVersion, Resource: a.Plural, Subresource: a.Subresource, Name: a.Name,
		ResourceRequest: a.Resource, Path: a.Path,
	}
}

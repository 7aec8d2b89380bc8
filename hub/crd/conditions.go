package crd

import (
	"crypto/x509"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/kube"
)

// decide returns the status that a definition should have: names, whether it is established, whether its group allows it. all are
// the definitions that there are; nonStructural is the condition of that name, nil for none.
func decide(crd *apiextensionsv1.CustomResourceDefinition, all []*apiextensionsv1.CustomResourceDefinition, nonStructural *apiextensionsv1.CustomResourceDefinitionCondition) *apiextensionsv1.CustomResourceDefinition {
	next := crd.DeepCopy()
	if !apiequality.Semantic.DeepEqual(crd.Spec.Names, crd.Status.AcceptedNames) ||
		apihelpers.FindCRDCondition(crd, apiextensionsv1.NamesAccepted) == nil || !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
		var accepted apiextensionsv1.CustomResourceDefinitionCondition
		next.Status.AcceptedNames, accepted = acceptNames(crd, takenIn(crd.Spec.Group, others(crd, all)))
		setCondition(next, accepted)
		setCondition(next, established(crd, accepted))
	}
	if c := approval(crd); c != nil {
		setCondition(next, *c)
	}
	if nonStructural != nil {
		setCondition(next, *nonStructural)
	} else if apihelpers.FindCRDCondition(next, apiextensionsv1.NonStructuralSchema) != nil {
		apihelpers.RemoveCRDCondition(next, apiextensionsv1.NonStructuralSchema)
	}
	return next
}

// others returns the definitions but crd.
func others(crd *apiextensionsv1.CustomResourceDefinition, all []*apiextensionsv1.CustomResourceDefinition) (out []*apiextensionsv1.CustomResourceDefinition) {
	for _, o := range all {
		if o.Name != crd.Name {
			out = append(out, o)
		}
	}
	return out
}

// setCondition sets a condition, unless it is there already but for its time.
func setCondition(crd *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition) {
	if !apihelpers.IsCRDConditionEquivalent(&c, apihelpers.FindCRDCondition(crd, c.Type)) {
		apihelpers.SetCRDCondition(crd, c)
	}
}

// approval returns whether a definition in a group of the Kubernetes community has been approved; nil for all other groups.
func approval(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return nil
	}
	state, why := apihelpers.GetAPIApprovalState(crd.Annotations)
	c := &apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: why,
	}
	switch state {
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return c
}

// structure returns what keeps the schemas of a definition from being structural; nil: nothing. The API refuses new definitions of that
// sort, but a store may have old ones. crd has its schemas; it is only read.
func structure(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	c := &apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionUnknown}
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i, v := range crd.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		in := &apiextensions.CustomResourceValidation{}
		err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, in, nil)
		var s *structuralschema.Structural
		if err == nil {
			s, err = structuralschema.NewStructural(in.OpenAPIV3Schema)
		}
		if err != nil {
			c.Reason = "StructuralError"
			c.Message = fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return c
		}
		errs = append(errs, structuralschema.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "Violations", kube.First(errs).ToAggregate().Error()
	return c
}

// invalidCABundle reports whether the authorities of a conversion webhook cannot be read.
func invalidCABundle(crd *apiextensionsv1.CustomResourceDefinition) bool {
	c := crd.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil || strings.TrimSpace(string(c.Webhook.ClientConfig.CABundle)) == "" {
		return false
	}
	return !x509.NewCertPool().AppendCertsFromPEM(c.Webhook.ClientConfig.CABundle)
}

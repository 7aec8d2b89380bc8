package policy

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/policy"
	"k8s.io/kubernetes/pkg/apis/policy/validation"

	"petrel.dev/petrel/hub/resource"
)

func podDisruptionBudgetKind() *resource.Kind {
	k := resource.Declare(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), "poddisruptionbudgets", "poddisruptionbudget")
	k.ShortNames = []string{"pdb"}
	k.Rules = resource.Strategy[policy.PodDisruptionBudget]{
		PrepareCreate: func(b *policy.PodDisruptionBudget) {
			b.Status = policy.PodDisruptionBudgetStatus{}
			b.Generation = 1
		},
		PrepareUpdate: func(b, old *policy.PodDisruptionBudget) {
			b.Status = *old.Status.DeepCopy()
			resource.CountChange(&b.ObjectMeta, &old.ObjectMeta, b.Spec, old.Spec)
		},
		ValidateCreate: func(b *policy.PodDisruptionBudget) field.ErrorList {
			return validation.ValidatePodDisruptionBudget(b, validation.PodDisruptionBudgetValidationOptions{})
		},
		ValidateUpdate: func(b, old *policy.PodDisruptionBudget) field.ErrorList {
			// What was accepted once may stay.
			wrong := old.Spec.Selector != nil &&
				len(metav1validation.ValidateLabelSelector(old.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
			return validation.ValidatePodDisruptionBudget(b, validation.PodDisruptionBudgetValidationOptions{AllowInvalidLabelValueInSelector: wrong})
		},
		ConditionalUpdate: true,
	}.Rules()
	k.Subresources["status"] = resource.Strategy[policy.PodDisruptionBudget]{
		PrepareUpdate: func(b, old *policy.PodDisruptionBudget) { b.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: func(b, old *policy.PodDisruptionBudget) field.ErrorList {
			return validation.ValidatePodDisruptionBudgetStatusUpdate(b.Status, old.Status, field.NewPath("status"), policyv1.SchemeGroupVersion)
		},
		ConditionalUpdate: true,
	}.Status(k)
	return k
}

package resource

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/policy"
	"k8s.io/kubernetes/pkg/apis/policy/validation"

	"petrel.dev/petrel/internal/kube"
)

func podDisruptionBudgetKind() *Kind {
	k := declare(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), "poddisruptionbudgets", "poddisruptionbudget",
		func() kube.Object { return &policyv1.PodDisruptionBudget{} }, func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} })
	k.ShortNames = []string{"pdb"}
	k.Inert = "evictions do not look at it yet"
	k.Rules = strategy[policy.PodDisruptionBudget]{
		prepareCreate: func(b *policy.PodDisruptionBudget) {
			b.Status = policy.PodDisruptionBudgetStatus{}
			b.Generation = 1
		},
		prepareUpdate: func(b, old *policy.PodDisruptionBudget) {
			b.Status = *old.Status.DeepCopy()
			countChange(&b.ObjectMeta, &old.ObjectMeta, b.Spec, old.Spec)
		},
		validateCreate: func(b *policy.PodDisruptionBudget) field.ErrorList {
			return validation.ValidatePodDisruptionBudget(b, validation.PodDisruptionBudgetValidationOptions{})
		},
		validateUpdate: func(b, old *policy.PodDisruptionBudget) field.ErrorList {
			// What was accepted once may stay.
			wrong := old.Spec.Selector != nil &&
				len(metav1validation.ValidateLabelSelector(old.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
			return validation.ValidatePodDisruptionBudget(b, validation.PodDisruptionBudgetValidationOptions{AllowInvalidLabelValueInSelector: wrong})
		},
		conditionalUpdate: true,
	}.rules()
	k.Subresources["status"] = strategy[policy.PodDisruptionBudget]{
		prepareUpdate: func(b, old *policy.PodDisruptionBudget) { b.Spec = *old.Spec.DeepCopy() },
		validateUpdate: func(b, old *policy.PodDisruptionBudget) field.ErrorList {
			return validation.ValidatePodDisruptionBudgetStatusUpdate(b.Status, old.Status, field.NewPath("status"), policyv1.SchemeGroupVersion)
		},
		conditionalUpdate: true,
	}.status(k)
	return k
}

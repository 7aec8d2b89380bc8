package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
)

// podTemplateKind is data that clients keep: on Kubernetes nothing acts on it either.
func podTemplateKind() *resource.Kind {
	k := resource.Declare(corev1.SchemeGroupVersion.WithKind("PodTemplate"), "podtemplates", "podtemplate")
	k.ReturnDeletedObject = true
	path := field.NewPath("template")
	k.Rules = resource.Strategy[api.PodTemplate]{
		PrepareCreate: func(t *api.PodTemplate) {
			t.Generation = 1
			podutil.DropDisabledTemplateFields(&t.Template, nil)
		},
		PrepareUpdate: func(t, old *api.PodTemplate) {
			podutil.DropDisabledTemplateFields(&t.Template, &old.Template)
			resource.CountChange(&t.ObjectMeta, &old.ObjectMeta, t.Template, old.Template)
		},
		ValidateCreate: func(t *api.PodTemplate) field.ErrorList {
			return corevalidation.ValidatePodTemplate(t, podutil.GetValidationOptionsFromPodTemplate(&t.Template, nil))
		},
		ValidateUpdate: func(t, old *api.PodTemplate) field.ErrorList {
			return corevalidation.ValidatePodTemplateUpdate(t, old, podutil.GetValidationOptionsFromPodTemplate(&t.Template, &old.Template))
		},
		WarnCreate: func(ctx context.Context, t *api.PodTemplate) []string {
			return podutil.GetWarningsForPodTemplate(ctx, path, &t.Template, nil)
		},
		WarnUpdate: func(ctx context.Context, t, old *api.PodTemplate) []string {
			if t.Generation == old.Generation {
				return nil
			}
			return podutil.GetWarningsForPodTemplate(ctx, path, &t.Template, &old.Template)
		},
	}.Rules()
	return k
}

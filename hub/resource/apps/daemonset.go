package apps

import (
	"context"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
	"petrel.dev/petrel/internal/kube"
)

func daemonSetKind() *resource.Kind {
	k := resource.Declare(kube.DaemonSet, "daemonsets", "daemonset")
	k.ShortNames, k.Categories = []string{"ds"}, []string{"all"}
	k.Rules = resource.Strategy[apps.DaemonSet]{
		PrepareCreate: func(d *apps.DaemonSet) {
			d.Status = apps.DaemonSetStatus{}
			d.Generation = 1
			d.Spec.TemplateGeneration = max(d.Spec.TemplateGeneration, 1)
			podutil.DropDisabledTemplateFields(&d.Spec.Template, nil)
		},
		PrepareUpdate: func(d, old *apps.DaemonSet) {
			podutil.DropDisabledTemplateFields(&d.Spec.Template, &old.Spec.Template)
			d.Status = *old.Status.DeepCopy()
			// v1 keeps it in an annotation, which is not the writer's to change.
			d.Spec.TemplateGeneration = old.Spec.TemplateGeneration
			if !apiequality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
				d.Spec.TemplateGeneration++
			}
			resource.CountChange(&d.ObjectMeta, &old.ObjectMeta, d.Spec, old.Spec)
		},
		ValidateCreate: func(d *apps.DaemonSet) field.ErrorList {
			return validation.ValidateDaemonSet(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
		},
		ValidateUpdate: func(d, old *apps.DaemonSet) field.ErrorList {
			opts := podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template)
			if metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector) { // what was accepted once may stay
				opts.AllowInvalidLabelValueInSelector = true
			}
			return validation.ValidateDaemonSetUpdate(d, old, opts)
		},
		WarnCreate: func(ctx context.Context, d *apps.DaemonSet) []string {
			return podtemplate.UpdateWarnings(ctx, &d.Spec.Template, nil)
		},
		WarnUpdate: func(ctx context.Context, d, old *apps.DaemonSet) []string {
			if d.Spec.TemplateGeneration == old.Spec.TemplateGeneration {
				return nil
			}
			return podtemplate.UpdateWarnings(ctx, &d.Spec.Template, &old.Spec.Template)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[apps.DaemonSet]{
		PrepareUpdate:  func(d, old *apps.DaemonSet) { d.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateDaemonSetStatusUpdate,
	}.Status(k)
	return k
}

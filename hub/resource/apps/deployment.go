package apps

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
	"petrel.dev/petrel/internal/kube"
)

func deploymentKind() *resource.Kind {
	k := resource.Declare(kube.Deployment, "deployments", "deployment")
	k.ShortNames = []string{"deploy"}
	k.Categories = []string{"all"}
	k.Rules = resource.Strategy[apps.Deployment]{
		PrepareCreate: func(d *apps.Deployment) {
			d.Status = apps.DeploymentStatus{}
			d.Generation = 1
			podutil.DropDisabledTemplateFields(&d.Spec.Template, nil)
		},
		PrepareUpdate: func(d, old *apps.Deployment) {
			d.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&d.Spec.Template, &old.Spec.Template)
			// Annotations count, because the controller copies them to ReplicaSets.
			if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
				d.Generation = old.Generation + 1
			}
		},
		ValidateCreate: func(d *apps.Deployment) field.ErrorList {
			return validation.ValidateDeployment(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
		},
		ValidateUpdate: func(d, old *apps.Deployment) field.ErrorList {
			return validation.ValidateDeploymentUpdate(d, old, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template))
		},
		WarnCreate: func(ctx context.Context, d *apps.Deployment) []string {
			return podtemplate.CreateWarnings(ctx, d.Name, &d.Spec.Template)
		},
		WarnUpdate: func(ctx context.Context, d, old *apps.Deployment) []string {
			if d.Generation == old.Generation {
				return nil
			}
			return podtemplate.UpdateWarnings(ctx, &d.Spec.Template, &old.Spec.Template)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[apps.Deployment]{
		PrepareUpdate: func(d, old *apps.Deployment) {
			copied := old.DeepCopy()
			d.Spec, d.Labels = copied.Spec, copied.Labels
		},
		ValidateUpdate: validation.ValidateDeploymentStatusUpdate,
	}.Status(k)
	k.Subresources["scale"] = resource.Scale(k,
		func(obj kube.Object) *resource.Scaled {
			d := obj.(*appsv1.Deployment)
			return &resource.Scaled{Replicas: &d.Spec.Replicas, Current: d.Status.Replicas, Selector: d.Spec.Selector}
		})
	return k
}

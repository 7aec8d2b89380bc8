package resource

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"
	api "k8s.io/kubernetes/pkg/apis/core"

	"petrel.dev/petrel/internal/kube"
)

func deploymentKind() *Kind {
	k := declare(kube.Deployment, "deployments", "deployment",
		func() kube.Object { return &appsv1.Deployment{} }, func() runtime.Object { return &appsv1.DeploymentList{} })
	k.ShortNames = []string{"deploy"}
	k.Categories = []string{"all"}
	k.Rules = strategy[apps.Deployment]{
		prepareCreate: func(d *apps.Deployment) {
			d.Status = apps.DeploymentStatus{}
			d.Generation = 1
			podutil.DropDisabledTemplateFields(&d.Spec.Template, nil)
		},
		prepareUpdate: func(d, old *apps.Deployment) {
			d.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&d.Spec.Template, &old.Spec.Template)
			// Annotations count, because the controller copies them to ReplicaSets.
			if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
				d.Generation = old.Generation + 1
			}
		},
		validateCreate: func(d *apps.Deployment) field.ErrorList {
			return validation.ValidateDeployment(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
		},
		validateUpdate: func(d, old *apps.Deployment) field.ErrorList {
			return validation.ValidateDeploymentUpdate(d, old, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template))
		},
		warnCreate: func(ctx context.Context, d *apps.Deployment) []string {
			return templateWarnings(ctx, d.Name, &d.Spec.Template)
		},
		warnUpdate: func(ctx context.Context, d, old *apps.Deployment) []string {
			if d.Generation == old.Generation {
				return nil
			}
			return podutil.GetWarningsForPodTemplate(ctx, templatePath, &d.Spec.Template, &old.Spec.Template)
		},
	}.rules()
	k.Subresources["status"] = strategy[apps.Deployment]{
		prepareUpdate: func(d, old *apps.Deployment) {
			copied := old.DeepCopy()
			d.Spec, d.Labels = copied.Spec, copied.Labels
		},
		validateUpdate: validation.ValidateDeploymentStatusUpdate,
	}.status(k)
	k.Subresources["scale"] = scale(k,
		func(obj kube.Object) *scaled {
			d := obj.(*appsv1.Deployment)
			return &scaled{replicas: &d.Spec.Replicas, current: d.Status.Replicas, selector: d.Spec.Selector}
		})
	return k
}

func replicaSetKind() *Kind {
	k := declare(kube.ReplicaSet, "replicasets", "replicaset",
		func() kube.Object { return &appsv1.ReplicaSet{} }, func() runtime.Object { return &appsv1.ReplicaSetList{} })
	k.ShortNames = []string{"rs"}
	k.Categories = []string{"all"}
	k.Rules = strategy[apps.ReplicaSet]{
		prepareCreate: func(rs *apps.ReplicaSet) {
			rs.Status = apps.ReplicaSetStatus{}
			rs.Generation = 1
			podutil.DropDisabledTemplateFields(&rs.Spec.Template, nil)
		},
		prepareUpdate: func(rs, old *apps.ReplicaSet) {
			rs.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&rs.Spec.Template, &old.Spec.Template)
			countChange(&rs.ObjectMeta, &old.ObjectMeta, rs.Spec, old.Spec)
		},
		validateCreate: func(rs *apps.ReplicaSet) field.ErrorList {
			return validation.ValidateReplicaSet(rs, podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, nil))
		},
		validateUpdate: func(rs, old *apps.ReplicaSet) field.ErrorList {
			return validation.ValidateReplicaSetUpdate(rs, old, podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, &old.Spec.Template))
		},
		warnCreate: func(ctx context.Context, rs *apps.ReplicaSet) []string {
			return templateWarnings(ctx, rs.Name, &rs.Spec.Template)
		},
		warnUpdate: func(ctx context.Context, rs, old *apps.ReplicaSet) []string {
			if rs.Generation == old.Generation {
				return nil
			}
			return podutil.GetWarningsForPodTemplate(ctx, templatePath, &rs.Spec.Template, &old.Spec.Template)
		},
	}.rules()
	k.Subresources["status"] = strategy[apps.ReplicaSet]{
		prepareUpdate:  func(rs, old *apps.ReplicaSet) { rs.Spec = *old.Spec.DeepCopy() },
		validateUpdate: validation.ValidateReplicaSetStatusUpdate,
	}.status(k)
	k.Subresources["scale"] = scale(k,
		func(obj kube.Object) *scaled {
			rs := obj.(*appsv1.ReplicaSet)
			return &scaled{replicas: &rs.Spec.Replicas, current: rs.Status.Replicas, selector: rs.Spec.Selector}
		})
	return k
}

var templatePath = field.NewPath("spec", "template")

func templateWarnings(ctx context.Context, name string, template *api.PodTemplateSpec) []string {
	var out []string
	if msgs := utilvalidation.IsDNS1123Label(name); len(msgs) != 0 {
		out = append(out, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs))
	}
	return append(out, podutil.GetWarningsForPodTemplate(ctx, templatePath, template, nil)...)
}

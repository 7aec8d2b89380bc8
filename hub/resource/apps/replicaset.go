package apps

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
	"petrel.dev/petrel/internal/kube"
)

func replicaSetKind() *resource.Kind {
	k := resource.Declare(kube.ReplicaSet, "replicasets", "replicaset")
	k.ShortNames = []string{"rs"}
	k.Categories = []string{"all"}
	k.Rules = resource.Strategy[apps.ReplicaSet]{
		PrepareCreate: func(rs *apps.ReplicaSet) {
			rs.Status = apps.ReplicaSetStatus{}
			rs.Generation = 1
			podutil.DropDisabledTemplateFields(&rs.Spec.Template, nil)
		},
		PrepareUpdate: func(rs, old *apps.ReplicaSet) {
			rs.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&rs.Spec.Template, &old.Spec.Template)
			resource.CountChange(&rs.ObjectMeta, &old.ObjectMeta, rs.Spec, old.Spec)
		},
		ValidateCreate: func(rs *apps.ReplicaSet) field.ErrorList {
			return validation.ValidateReplicaSet(rs, podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, nil))
		},
		ValidateUpdate: func(rs, old *apps.ReplicaSet) field.ErrorList {
			return validation.ValidateReplicaSetUpdate(rs, old, podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, &old.Spec.Template))
		},
		WarnCreate: func(ctx context.Context, rs *apps.ReplicaSet) []string {
			return podtemplate.CreateWarnings(ctx, rs.Name, &rs.Spec.Template)
		},
		WarnUpdate: func(ctx context.Context, rs, old *apps.ReplicaSet) []string {
			if rs.Generation == old.Generation {
				return nil
			}
			return podtemplate.UpdateWarnings(ctx, &rs.Spec.Template, &old.Spec.Template)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[apps.ReplicaSet]{
		PrepareUpdate:  func(rs, old *apps.ReplicaSet) { rs.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateReplicaSetStatusUpdate,
	}.Status(k)
	k.Subresources["scale"] = resource.Scale(k,
		func(obj kube.Object) *resource.Scaled {
			rs := obj.(*appsv1.ReplicaSet)
			return &resource.Scaled{Replicas: &rs.Spec.Replicas, Current: rs.Status.Replicas, Selector: rs.Spec.Selector}
		})
	return k
}

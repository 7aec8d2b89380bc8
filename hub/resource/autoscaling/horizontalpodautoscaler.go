// Package autoscaling declares the kinds of the group autoscaling.
package autoscaling

import (
	"context"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	"k8s.io/kubernetes/pkg/apis/autoscaling/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds returns the declarations. Objects are stored as v2, which is also the version that clients should prefer; v1 is a view of
// them, and keeps what it cannot express in annotations.
func Kinds() []*resource.Kind {
	stored := autoscalerKind(autoscalingv2.SchemeGroupVersion)
	view := autoscalerKind(autoscalingv1.SchemeGroupVersion)
	view.StoredAs = stored
	// v2 has defaults that v1 does not know (what to measure); upstream fills them in as it reads what is stored.
	create, update := view.Rules.PrepareCreate, view.Rules.PrepareUpdate
	view.Rules.PrepareCreate = func(ctx context.Context, obj kube.Object) {
		create(ctx, obj)
		resource.Scheme().Default(obj)
	}
	view.Rules.PrepareUpdate = func(ctx context.Context, obj, old kube.Object) {
		update(ctx, obj, old)
		resource.Scheme().Default(obj)
	}
	return []*resource.Kind{stored, view}
}

func autoscalerKind(gv schema.GroupVersion) *resource.Kind {
	type autoscaler = autoscaling.HorizontalPodAutoscaler
	k := resource.Declare(gv.WithKind("HorizontalPodAutoscaler"), "horizontalpodautoscalers", "horizontalpodautoscaler")
	k.ShortNames, k.Categories = []string{"hpa"}, []string{"all"}
	k.Rules = resource.Strategy[autoscaler]{
		PrepareCreate: func(a *autoscaler) { a.Status = autoscaling.HorizontalPodAutoscalerStatus{} },
		PrepareUpdate: func(a, old *autoscaler) { a.Status = *old.Status.DeepCopy() },
		ValidateCreate: func(a *autoscaler) field.ErrorList {
			return validation.ValidateHorizontalPodAutoscaler(a, options(a, nil))
		},
		ValidateUpdate: func(a, old *autoscaler) field.ErrorList {
			return validation.ValidateHorizontalPodAutoscalerUpdate(a, old, options(a, old))
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[autoscaler]{
		PrepareUpdate:  func(a, old *autoscaler) { a.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateHorizontalPodAutoscalerStatusUpdate,
	}.Status(k)
	return k
}

// options decides what an autoscaler may refer to; old is nil for a creation. What was accepted once may stay. Scaling to zero is
// off in Kubernetes 1.36 (HPAScaleToZero).
func options(a, old *autoscaling.HorizontalPodAutoscaler) validation.HorizontalPodAutoscalerSpecValidationOptions {
	opts := validation.HorizontalPodAutoscalerSpecValidationOptions{MinReplicasLowerBound: 1}
	opts.ObjectMetricsValidationOptions.AllowEmptyAPIGroup = true
	// The only kind of the core group that can be scaled.
	opts.ScaleTargetRefValidationOptions.AllowEmptyAPIGroup = a.Spec.ScaleTargetRef.Kind == "ReplicationController"
	if old == nil {
		return opts
	}
	if n := old.Spec.MinReplicas; n != nil && *n == 0 {
		opts.MinReplicasLowerBound = 0
	}
	now, before := a.Spec.ScaleTargetRef, old.Spec.ScaleTargetRef
	if now.APIVersion == before.APIVersion && now.Kind == before.Kind {
		opts.ScaleTargetRefValidationOptions = validation.CrossVersionObjectReferenceValidationOptions{AllowInvalidAPIVersion: true}
	}
	for _, m := range old.Spec.Metrics {
		if m.Type == autoscaling.ObjectMetricSourceType && m.Object != nil &&
			validation.ValidateAPIVersion(m.Object.DescribedObject, opts.ObjectMetricsValidationOptions) != nil {
			opts.ObjectMetricsValidationOptions.AllowInvalidAPIVersion = true
		}
	}
	return opts
}

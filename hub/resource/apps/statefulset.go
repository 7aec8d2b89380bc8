package apps

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	claimutil "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
	"petrel.dev/petrel/internal/kube"
)

func statefulSetKind() *resource.Kind {
	k := resource.Declare(kube.StatefulSet, "statefulsets", "statefulset")
	k.ShortNames, k.Categories = []string{"sts"}, []string{"all"}
	k.Rules = resource.Strategy[apps.StatefulSet]{
		PrepareCreate: func(s *apps.StatefulSet) {
			s.Status = apps.StatefulSetStatus{}
			s.Generation = 1
			podutil.DropDisabledTemplateFields(&s.Spec.Template, nil)
		},
		PrepareUpdate: func(s, old *apps.StatefulSet) {
			s.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&s.Spec.Template, &old.Spec.Template)
			resource.CountChange(&s.ObjectMeta, &old.ObjectMeta, s.Spec, old.Spec)
		},
		ValidateCreate: func(s *apps.StatefulSet) field.ErrorList {
			return validation.ValidateStatefulSet(s, podutil.GetValidationOptionsFromPodTemplate(&s.Spec.Template, nil))
		},
		ValidateUpdate: func(s, old *apps.StatefulSet) field.ErrorList {
			return validation.ValidateStatefulSetUpdate(s, old, podutil.GetValidationOptionsFromPodTemplate(&s.Spec.Template, &old.Spec.Template))
		},
		WarnCreate: func(ctx context.Context, s *apps.StatefulSet) []string {
			out := podtemplate.UpdateWarnings(ctx, &s.Spec.Template, nil) // names of its pods are its own affair
			return append(out, setWarnings(s, func(i int) *field.Path { return claimPath.Index(i) })...)
		},
		WarnUpdate: func(ctx context.Context, s, old *apps.StatefulSet) []string {
			var out []string
			if s.Generation != old.Generation {
				out = podtemplate.UpdateWarnings(ctx, &s.Spec.Template, &old.Spec.Template)
			}
			return append(out, setWarnings(s, func(i int) *field.Path { return claimPath.Index(i).Child("Spec") })...)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[apps.StatefulSet]{
		PrepareUpdate:  func(s, old *apps.StatefulSet) { s.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateStatefulSetStatusUpdate,
	}.Status(k)
	k.Subresources["scale"] = resource.Scale(k, func(obj kube.Object) *resource.Scaled {
		s := obj.(*appsv1.StatefulSet)
		return &resource.Scaled{Replicas: &s.Spec.Replicas, Current: s.Status.Replicas, Selector: s.Spec.Selector}
	})
	return k
}

var claimPath = field.NewPath("spec", "volumeClaimTemplates")

func setWarnings(s *apps.StatefulSet, path func(i int) *field.Path) []string {
	var out []string
	for i := range s.Spec.VolumeClaimTemplates {
		out = append(out, claimutil.GetWarningsForPersistentVolumeClaimSpec(path(i), s.Spec.VolumeClaimTemplates[i].Spec)...)
	}
	if n := s.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
		out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return out
}

package resource

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	api "k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/internal/kube"
)

// podTemplateKind is data that clients keep: on Kubernetes nothing acts on it either.
func podTemplateKind() *Kind {
	k := declare(corev1.SchemeGroupVersion.WithKind("PodTemplate"), "podtemplates", "podtemplate",
		func() kube.Object { return &corev1.PodTemplate{} }, func() runtime.Object { return &corev1.PodTemplateList{} })
	k.ReturnDeletedObject = true
	path := field.NewPath("template")
	k.Rules = strategy[api.PodTemplate]{
		prepareCreate: func(t *api.PodTemplate) {
			t.Generation = 1
			podutil.DropDisabledTemplateFields(&t.Template, nil)
		},
		prepareUpdate: func(t, old *api.PodTemplate) {
			podutil.DropDisabledTemplateFields(&t.Template, &old.Template)
			countChange(&t.ObjectMeta, &old.ObjectMeta, t.Template, old.Template)
		},
		validateCreate: func(t *api.PodTemplate) field.ErrorList {
			return corevalidation.ValidatePodTemplate(t, podutil.GetValidationOptionsFromPodTemplate(&t.Template, nil))
		},
		validateUpdate: func(t, old *api.PodTemplate) field.ErrorList {
			return corevalidation.ValidatePodTemplateUpdate(t, old, podutil.GetValidationOptionsFromPodTemplate(&t.Template, &old.Template))
		},
		warnCreate: func(ctx context.Context, t *api.PodTemplate) []string {
			return podutil.GetWarningsForPodTemplate(ctx, path, &t.Template, nil)
		},
		warnUpdate: func(ctx context.Context, t, old *api.PodTemplate) []string {
			if t.Generation == old.Generation {
				return nil
			}
			return podutil.GetWarningsForPodTemplate(ctx, path, &t.Template, &old.Template)
		},
	}.rules()
	return k
}

// controllerRevisionKind is what controllers, also those of others, keep of a workload's earlier states.
func controllerRevisionKind() *Kind {
	k := declare(appsv1.SchemeGroupVersion.WithKind("ControllerRevision"), "controllerrevisions", "controllerrevision",
		func() kube.Object { return &appsv1.ControllerRevision{} }, func() runtime.Object { return &appsv1.ControllerRevisionList{} })
	k.Rules = strategy[apps.ControllerRevision]{
		validateCreate: appsvalidation.ValidateControllerRevisionCreate,
		validateUpdate: func(r, old *apps.ControllerRevision) field.ErrorList {
			return appsvalidation.ValidateControllerRevisionUpdate(r, old)
		},
	}.rules()
	return k
}

package core

import (
	"context"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
	"petrel.dev/petrel/internal/kube"
)

func replicationControllerKind() *resource.Kind {
	k := resource.Declare(kube.ReplicationController, "replicationcontrollers", "replicationcontroller")
	k.ShortNames, k.Categories = []string{"rc"}, []string{"all"}
	k.OrphanDependents = true
	k.Rules = resource.Strategy[api.ReplicationController]{
		PrepareCreate: func(rc *api.ReplicationController) {
			rc.Status = api.ReplicationControllerStatus{}
			rc.Generation = 1
			podutil.DropDisabledTemplateFields(rc.Spec.Template, nil)
		},
		PrepareUpdate: func(rc, old *api.ReplicationController) {
			rc.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(rc.Spec.Template, old.Spec.Template)
			resource.CountChange(&rc.ObjectMeta, &old.ObjectMeta, rc.Spec, old.Spec)
		},
		ValidateCreate: func(rc *api.ReplicationController) field.ErrorList {
			return validation.ValidateReplicationController(rc, podutil.GetValidationOptionsFromPodTemplate(rc.Spec.Template, nil))
		},
		ValidateUpdate: validateControllerUpdate,
		WarnCreate: func(ctx context.Context, rc *api.ReplicationController) []string {
			return podtemplate.CreateWarnings(ctx, rc.Name, rc.Spec.Template)
		},
		WarnUpdate: func(ctx context.Context, rc, old *api.ReplicationController) []string {
			if rc.Generation == old.Generation {
				return nil
			}
			return podtemplate.UpdateWarnings(ctx, rc.Spec.Template, old.Spec.Template)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[api.ReplicationController]{
		PrepareUpdate:  func(rc, old *api.ReplicationController) { rc.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateReplicationControllerStatusUpdate,
	}.Status(k)
	k.Subresources["scale"] = resource.Scale(k, func(obj kube.Object) *resource.Scaled {
		rc := obj.(*corev1.ReplicationController)
		return &resource.Scaled{Replicas: &rc.Spec.Replicas, Current: rc.Status.Replicas, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}}
	})
	k.SelectFields(func(obj kube.Object, s fields.Set) {
		s["status.replicas"] = strconv.Itoa(int(obj.(*corev1.ReplicationController).Status.Replicas))
	}, "status.replicas")
	return k
}

// validateControllerUpdate also keeps the selector of an object that came from a ReplicaSet with one that v1 cannot express: the
// conversion notes it in an annotation.
func validateControllerUpdate(rc, old *api.ReplicationController) field.ErrorList {
	opts := podutil.GetValidationOptionsFromPodTemplate(rc.Spec.Template, old.Spec.Template)
	errs := validation.ValidateReplicationControllerUpdate(rc, old, opts)
	for key, value := range helper.NonConvertibleFields(old.Annotations) {
		_, name, ok := strings.Cut(key, "/")
		switch {
		case !ok || strings.Contains(name, "/"):
		case !strings.Contains(name, "selector"):
			errs = append(errs, &field.Error{Type: field.ErrorTypeNotFound, BadValue: value, Field: name, Detail: "unknown non-convertible field"})
		case !apiequality.Semantic.DeepEqual(old.Spec.Selector, rc.Spec.Selector):
			errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), rc.Spec.Selector, "cannot update non-convertible selector"))
		}
	}
	return errs
}

// Package flowcontrol declares the kinds of flowcontrol.apiserver.k8s.io.
package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/flowcontrol"
	_ "k8s.io/kubernetes/pkg/apis/flowcontrol/install"
	"k8s.io/kubernetes/pkg/apis/flowcontrol/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{flowSchemaKind(), priorityLevelConfigurationKind()}
}

func flowSchemaKind() *resource.Kind {
	k := resource.Declare(kube.FlowSchema, "flowschemas", "flowschema")
	k.ClusterScoped()
	k.Rules = resource.Strategy[flowcontrol.FlowSchema]{
		PrepareCreate: func(f *flowcontrol.FlowSchema) {
			f.Status = flowcontrol.FlowSchemaStatus{}
			f.Generation = 1
		},
		PrepareUpdate: func(f, old *flowcontrol.FlowSchema) {
			f.Status = *old.Status.DeepCopy()
			resource.CountChange(&f.ObjectMeta, &old.ObjectMeta, f.Spec, old.Spec)
		},
		ValidateCreate: validation.ValidateFlowSchema,
		ValidateUpdate: func(f, old *flowcontrol.FlowSchema) field.ErrorList {
			return validation.ValidateFlowSchemaUpdate(old, f)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[flowcontrol.FlowSchema]{
		PrepareUpdate: func(f, old *flowcontrol.FlowSchema) {
			copied := old.DeepCopy()
			f.Spec = copied.Spec
			metav1.ResetObjectMetaForStatus(&f.ObjectMeta, &copied.ObjectMeta)
		},
		ValidateUpdate: func(f, old *flowcontrol.FlowSchema) field.ErrorList {
			return validation.ValidateFlowSchemaStatusUpdate(old, f)
		},
	}.Status(k)
	return k
}

func priorityLevelConfigurationKind() *resource.Kind {
	type level = flowcontrol.PriorityLevelConfiguration
	k := resource.Declare(kube.PriorityLevelConfiguration,
		"prioritylevelconfigurations", "prioritylevelconfiguration")
	k.ClusterScoped()
	validate := func(l *level) field.ErrorList {
		return validation.ValidatePriorityLevelConfiguration(l, flowcontrolv1.SchemeGroupVersion, validation.PriorityLevelValidationOptions{})
	}
	k.Rules = resource.Strategy[level]{
		PrepareCreate: func(l *level) {
			l.Status = flowcontrol.PriorityLevelConfigurationStatus{}
			l.Generation = 1
		},
		PrepareUpdate: func(l, old *level) {
			l.Status = *old.Status.DeepCopy()
			resource.CountChange(&l.ObjectMeta, &old.ObjectMeta, l.Spec, old.Spec)
		},
		ValidateCreate: validate,
		ValidateUpdate: func(l, _ *level) field.ErrorList { return validate(l) },
	}.Rules()
	k.Subresources["status"] = resource.Strategy[level]{
		PrepareUpdate: func(l, old *level) {
			copied := old.DeepCopy()
			l.Spec = copied.Spec
			metav1.ResetObjectMetaForStatus(&l.ObjectMeta, &copied.ObjectMeta)
		},
		ValidateUpdate: func(l, old *level) field.ErrorList {
			return validation.ValidatePriorityLevelConfigurationStatusUpdate(old, l)
		},
	}.Status(k)
	return k
}

package resource

import (
	"context"

	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	nodeutil "k8s.io/kubernetes/pkg/api/node"
	"k8s.io/kubernetes/pkg/apis/node"
	nodevalidation "k8s.io/kubernetes/pkg/apis/node/validation"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"

	"petrel.dev/petrel/internal/kube"
)

// priorityClassKind is obeyed by admission, which gives each new pod the number of its class.
func priorityClassKind() *Kind {
	k := declare(kube.PriorityClass, "priorityclasses", "priorityclass",
		func() kube.Object { return &schedulingv1.PriorityClass{} }, func() runtime.Object { return &schedulingv1.PriorityClassList{} })
	k.clusterScoped()
	k.ShortNames = []string{"pc"}
	k.Rules = strategy[scheduling.PriorityClass]{
		prepareCreate:  func(c *scheduling.PriorityClass) { c.Generation = 1 },
		validateCreate: schedulingvalidation.ValidatePriorityClass,
		validateUpdate: schedulingvalidation.ValidatePriorityClassUpdate,
	}.rules()
	return k
}

func runtimeClassKind() *Kind {
	k := declare(kube.RuntimeClass, "runtimeclasses", "runtimeclass",
		func() kube.Object { return &nodev1.RuntimeClass{} }, func() runtime.Object { return &nodev1.RuntimeClassList{} })
	k.clusterScoped()
	k.Inert = "pods that name one are refused, because every pod runs on runc"
	k.Rules = strategy[node.RuntimeClass]{
		validateCreate: nodevalidation.ValidateRuntimeClass,
		validateUpdate: func(c, old *node.RuntimeClass) field.ErrorList {
			return append(nodevalidation.ValidateRuntimeClass(c), nodevalidation.ValidateRuntimeClassUpdate(c, old)...)
		},
		warnCreate: func(_ context.Context, c *node.RuntimeClass) []string { return nodeutil.GetWarningsForRuntimeClass(c) },
		warnUpdate: func(_ context.Context, c, _ *node.RuntimeClass) []string {
			return nodeutil.GetWarningsForRuntimeClass(c)
		},
		createOnUpdate:    true,
		conditionalUpdate: true,
	}.rules()
	return k
}

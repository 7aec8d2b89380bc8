// Package node declares the kinds of node.k8s.io.
package node

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation/field"
	nodeutil "k8s.io/kubernetes/pkg/api/node"
	"k8s.io/kubernetes/pkg/apis/node"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	"k8s.io/kubernetes/pkg/apis/node/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{runtimeClassKind()} }

func runtimeClassKind() *resource.Kind {
	k := resource.Declare(kube.RuntimeClass, "runtimeclasses", "runtimeclass")
	k.ClusterScoped()
	k.Rules = resource.Strategy[node.RuntimeClass]{
		ValidateCreate: validation.ValidateRuntimeClass,
		ValidateUpdate: func(c, old *node.RuntimeClass) field.ErrorList {
			return append(validation.ValidateRuntimeClass(c), validation.ValidateRuntimeClassUpdate(c, old)...)
		},
		WarnCreate: func(_ context.Context, c *node.RuntimeClass) []string { return nodeutil.GetWarningsForRuntimeClass(c) },
		WarnUpdate: func(_ context.Context, c, _ *node.RuntimeClass) []string {
			return nodeutil.GetWarningsForRuntimeClass(c)
		},
		CreateOnUpdate:    true,
		ConditionalUpdate: true,
	}.Rules()
	return k
}

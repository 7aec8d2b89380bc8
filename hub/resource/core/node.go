package core

//lint:file-ignore SA1019 what is gone from Kubernetes has to be cleared where an old client sends it

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func nodeKind() *resource.Kind {
	k := resource.Declare(kube.Node, "nodes", "node")
	k.ClusterScoped()
	k.ShortNames = []string{"no"}
	k.Rules = resource.Strategy[api.Node]{
		// A node may be created with its status. The kubelet's dynamic configuration is gone for good.
		PrepareCreate: func(node *api.Node) {
			node.Spec.ConfigSource = nil
			node.Status.Config = nil
		},
		PrepareUpdate: func(node, old *api.Node) {
			node.Status = *old.Status.DeepCopy()
			if old.Spec.ConfigSource == nil {
				node.Spec.ConfigSource = nil
			}
		},
		ValidateCreate: validation.ValidateNode,
		ValidateUpdate: func(node, old *api.Node) field.ErrorList {
			return append(validation.ValidateNode(node), validation.ValidateNodeUpdate(node, old)...)
		},
		WarnCreate: func(_ context.Context, node *api.Node) []string { return nodeWarnings(node) },
		WarnUpdate: func(_ context.Context, node, _ *api.Node) []string { return nodeWarnings(node) },
	}.Rules()
	k.Subresources["status"] = resource.Strategy[api.Node]{
		PrepareUpdate: func(node, old *api.Node) {
			node.Spec = *old.Spec.DeepCopy()
			if old.Status.Config == nil {
				node.Status.Config = nil
			}
		},
		ValidateUpdate: validation.ValidateNodeUpdate,
	}.Status(k)
	k.SelectFields(func(obj kube.Object, s fields.Set) {
		s["spec.unschedulable"] = strconv.FormatBool(obj.(*corev1.Node).Spec.Unschedulable)
	}, "spec.unschedulable")
	return k
}

func nodeWarnings(node *api.Node) []string {
	var out []string
	if node.Spec.ConfigSource != nil {
		out = append(out, "spec.configSource: the feature is removed")
	}
	if node.Spec.DoNotUseExternalID != "" {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range node.Spec.PodCIDRs {
		out = append(out, utilvalidation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return out
}

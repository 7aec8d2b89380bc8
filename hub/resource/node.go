package resource

//lint:file-ignore SA1019 what is gone from Kubernetes has to be cleared where an old client sends it

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/internal/kube"
)

func nodeKind() *Kind {
	k := declare(kube.Node, "nodes", "node",
		func() kube.Object { return &corev1.Node{} }, func() runtime.Object { return &corev1.NodeList{} })
	k.clusterScoped()
	k.ShortNames = []string{"no"}
	k.Rules = strategy[api.Node]{
		// A node may be created with its status. The kubelet's dynamic configuration is gone for good.
		prepareCreate: func(node *api.Node) {
			node.Spec.ConfigSource = nil
			node.Status.Config = nil
		},
		prepareUpdate: func(node, old *api.Node) {
			node.Status = *old.Status.DeepCopy()
			if old.Spec.ConfigSource == nil {
				node.Spec.ConfigSource = nil
			}
		},
		validateCreate: validation.ValidateNode,
		validateUpdate: func(node, old *api.Node) field.ErrorList {
			return append(validation.ValidateNode(node), validation.ValidateNodeUpdate(node, old)...)
		},
		warnCreate: func(_ context.Context, node *api.Node) []string { return nodeWarnings(node) },
		warnUpdate: func(_ context.Context, node, _ *api.Node) []string { return nodeWarnings(node) },
	}.rules()
	k.Subresources["status"] = strategy[api.Node]{
		prepareUpdate: func(node, old *api.Node) {
			node.Spec = *old.Spec.DeepCopy()
			if old.Status.Config == nil {
				node.Status.Config = nil
			}
		},
		validateUpdate: validation.ValidateNodeUpdate,
	}.status(k)
	k.selectFields(func(obj kube.Object, s fields.Set) {
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

// Package kubelet has what a kubelet writes of its node and the hub does in its place: the labels that a node may set on itself,
// statuses and its Lease.
package kubelet

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/internal/kube"
)

// nodeLabels are the labels below kubernetes.io and k8s.io that a node may set on itself: those that Kubernetes'
// NodeRestriction allows (IsKubeletLabel in k8s.io/kubernetes/pkg/kubelet/apis), but for the host name, which the hub sets: it
// is the Node's name.
var nodeLabels = []string{
	corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
	corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelWindowsBuild,
	"beta.kubernetes.io/os", "beta.kubernetes.io/arch",
}

// nodeLabelDomains are the domains whose labels a node may set on itself, with those below them.
var nodeLabelDomains = []string{"kubelet.kubernetes.io", "node.kubernetes.io"}

// maxLabels bounds the labels that a node sets on itself; a label is 380 bytes at most.
const maxLabels = 64

// allowedLabel reports whether a node may set a label on itself, as Kubernetes' NodeRestriction has it.
func allowedLabel(key, value string) bool {
	if len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
		return false
	}
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return true
	}
	below := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
	switch {
	case below("node-restriction.kubernetes.io"):
		return false
	case !below("kubernetes.io") && !below("k8s.io"):
		return true
	}
	return slices.Contains(nodeLabels, key) || slices.ContainsFunc(nodeLabelDomains, below)
}

// MergeLabels sets the labels that a Node's device reports, and returns those that it may not set, the first most of them. A label that the Node has with
// another value than the device reported before is another writer's, and stays.
func MergeLabels(node *corev1.Node, reported map[string]string, most int) (left []string) {
	var before map[string]string
	_ = json.Unmarshal([]byte(node.Annotations[kube.NodeLabelsAnnotation]), &before) // absent or damaged: all labels count as others'
	own := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(reported)) {
		v := reported[k]
		switch {
		case k == corev1.LabelHostname: // the Node's name is
		case len(own) >= maxLabels || !allowedLabel(k, v):
			if len(left) < most {
				left = append(left, fmt.Sprintf("label %.100q, which a node may not set on itself", k))
			}
		default:
			own[k] = v
		}
	}
	if len(own) == 0 && len(before) == 0 {
		return left
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	for k, v := range own {
		if now, ok := node.Labels[k]; !ok || now == before[k] {
			node.Labels[k] = v
		}
	}
	if b, err := json.Marshal(own); err == nil { // maps are encoded in order
		if node.Annotations == nil {
			node.Annotations = map[string]string{}
		}
		node.Annotations[kube.NodeLabelsAnnotation] = string(b)
	}
	return left
}

package noderestriction

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"petrel.dev/petrel/hub/registry"
)

// admitNode lets a node write its own Node, without what would draw pods to it: taints, and labels that schedulers trust.
func admitNode(node string, a *registry.AdmissionRequest) error {
	if name := written(a); name != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, name)
	}
	if a.Operation == registry.OpDelete {
		return nil // the authorizer has refused it
	}
	obj, ok := a.Object.(*corev1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Object)
	}
	if a.Operation == registry.OpCreate {
		//lint:ignore SA1019 clients may still send it
		if obj.Spec.ConfigSource != nil {
			return fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", node)
		}
		if wrong := trusted(obj.Labels, nil); len(wrong) > 0 {
			return fmt.Errorf("node %q is not allowed to set the following labels: %s", node, strings.Join(wrong, ", "))
		}
		return nil
	}
	old, ok := a.Old.(*corev1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Old)
	}
	wrong := trusted(obj.Labels, old.Labels)
	switch {
	//lint:ignore SA1019 clients may still send it
	case obj.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(obj.Spec.ConfigSource, old.Spec.ConfigSource):
		return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", node)
	case !equality.Semantic.DeepEqual(obj.Spec.Taints, old.Spec.Taints):
		return fmt.Errorf("node %q is not allowed to modify taints", node)
	case !equality.Semantic.DeepEqual(obj.OwnerReferences, old.OwnerReferences):
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
	case len(wrong) > 0:
		return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(wrong, ", "))
	}
	return nil
}

// trusted returns, in order, the labels that differ and that a node may not choose: those of node-restriction.kubernetes.io, and all
// of Kubernetes' own that do not describe the machine.
func trusted(now, before map[string]string) (keys []string) {
	for key, value := range now {
		if was, ok := before[key]; (!ok || was != value) && isTrusted(key) {
			keys = append(keys, key)
		}
	}
	for key := range before {
		if _, ok := now[key]; !ok && isTrusted(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// described are Kubernetes' labels that a kubelet sets of its own machine.
var described = []string{
	corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone,
	corev1.LabelFailureDomainBetaRegion, corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable,
	corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
}

func isTrusted(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	in := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	switch {
	case in(corev1.LabelNamespaceNodeRestriction):
		return true
	case !in("kubernetes.io") && !in("k8s.io"):
		return false
	}
	return !slices.Contains(described, key) && !in(corev1.LabelNamespaceSuffixKubelet) && !in(corev1.LabelNamespaceSuffixNode)
}

// commonName returns the subject's common name of a certificate request in PEM.
func commonName(request []byte) (string, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return "", errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", err
	}
	return r.Subject.CommonName, nil
}

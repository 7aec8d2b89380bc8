package desired

import (
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// object returns a member of a desired set with what nodes get of an API object.
func object(kind wire.Kind, meta metav1.Object, content any) (*wire.Object, error) {
	b, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	o := &wire.Object{ID: wire.ID{Kind: kind, UID: string(meta.GetUID())}, Namespace: meta.GetNamespace(), Name: meta.GetName(), Data: b}
	o.Version = wire.ContentVersion(o)
	return o, nil
}

// trimMeta returns metadata without what nodes do not use, and without what changes with no effect on them.
func trimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	m.ManagedFields, m.ResourceVersion = nil, ""
	m.SelfLink = "" //lint:ignore SA1019 an object of an older hub may still have it
	return m
}

// trimData returns the metadata of what a node only reads.
func trimData(m metav1.ObjectMeta) metav1.ObjectMeta {
	m = trimMeta(m)
	m.OwnerReferences, m.Finalizers, m.Generation = nil, nil, 0
	if _, ok := m.Annotations[corev1.LastAppliedConfigAnnotation]; ok {
		m.Annotations = maps.Clone(m.Annotations)
		delete(m.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return m
}

// podObject returns a pod as its node gets it. Its status comes from the node, so it is left out, but for what others have decided: that
// the pod has failed, and the conditions of its readiness gates.
func podObject(p *corev1.Pod) (*wire.Object, error) {
	q := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: trimMeta(p.ObjectMeta),
		Spec:       p.Spec,
	}
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		q.Status = corev1.PodStatus{Phase: p.Status.Phase, Reason: p.Status.Reason, Message: p.Status.Message}
	}
	q.Status.Conditions = kube.GateConditions(p)
	return object(wire.KindPod, p, &q)
}

func configMapObject(m *corev1.ConfigMap) (*wire.Object, error) {
	q := corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: trimData(m.ObjectMeta),
		Data: m.Data, BinaryData: m.BinaryData, Immutable: m.Immutable,
	}
	return object(wire.KindConfigMap, m, &q)
}

func secretObject(m *corev1.Secret) (*wire.Object, error) {
	q := corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: trimData(m.ObjectMeta),
		Data: m.Data, Type: m.Type, Immutable: m.Immutable,
	}
	return object(wire.KindSecret, m, &q)
}

// runtimeClassObject returns what a node needs of a class: with which handler its pods run. The rest is the scheduler's.
func runtimeClassObject(c *nodev1.RuntimeClass) (*wire.Object, error) {
	q := nodev1.RuntimeClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: "node.k8s.io/v1", Kind: "RuntimeClass"},
		ObjectMeta: metav1.ObjectMeta{Name: c.Name, UID: c.UID}, Handler: c.Handler,
	}
	return object(wire.KindRuntimeClass, c, &q)
}

func nodeObject(n *corev1.Node) (*wire.Object, error) {
	q := corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: trimData(n.ObjectMeta),
		Spec: n.Spec,
	}
	return object(wire.KindNode, n, &q)
}

// peerObject returns another node's pod network; nil when it has none yet.
func peerObject(n *corev1.Node) (*wire.Object, error) {
	p := wire.Peer{Name: n.Name, PodCIDR: n.Spec.PodCIDRs}
	if len(p.PodCIDR) == 0 && n.Spec.PodCIDR != "" {
		p.PodCIDR = []string{n.Spec.PodCIDR}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			p.Address = append(p.Address, a.Address)
		}
	}
	if len(p.PodCIDR) == 0 || len(p.Address) == 0 {
		return nil, nil
	}
	return object(wire.KindPeer, n, &p)
}

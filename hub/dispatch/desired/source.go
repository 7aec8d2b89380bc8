package desired

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Source is one kind of object that nodes get: an entry of the table. Exactly one of Node, Refs and All is set; it decides which
// nodes need an object.
type Source struct {
	// Kind is what the objects are on the wire.
	Kind wire.Kind
	// GVK is the API's kind that they are composed of.
	GVK kube.GVK

	// Node returns the name of the one node that needs an object, or "".
	Node func(o kube.Object) string
	// Refs returns what a pod refers to, each once: a node needs what its pods refer to.
	Refs func(p *corev1.Pod) []types.NamespacedName
	// All is true when every node needs every object.
	All bool

	// BeforePods is true when a pod that is sent after an object was made has to find it on its node, as it has to find the Services that
	// its environment names. Of sources with All; their parts may come later.
	BeforePods bool
	// With returns the kind and the name of a second object that is composed in, of sources with Refs; no name: none. It must be
	// one that changes with the first only, in whatever of it nodes get.
	With func(o kube.Object) (kube.GVK, types.NamespacedName)

	// Compose returns an object as nodes get it: trimmed, with Kind and o's UID as its ID, and equal as long as nothing
	// changes that nodes use. Nil means that there is nothing to send yet. parts is for sources with Part or With.
	Compose func(o kube.Object, parts []kube.Object) (*wire.Object, error)

	// Part is a second kind that is composed into the objects, of sources with All; zero: none. PartOf returns the object
	// that a part belongs to; no name: none.
	Part   kube.GVK
	PartOf func(part kube.Object) types.NamespacedName
	// Hides is a kind of a source with All. A node that gets an object of this source does not get the one of that kind
	// with the same UID: it is about the node itself. Of sources with Node; empty: none.
	Hides wire.Kind
}

// Table returns what Petrel's nodes get. To sync another kind, add its entry here, its wire.Kind with its content to
// internal/wire/object.go, and on the agent what decodes it (edgeagent/desired).
func Table() []Source {
	return []Source{
		{Kind: wire.KindPod, GVK: kube.Pod, Node: podNode, Compose: alone(podObject)},
		{Kind: wire.KindNode, GVK: kube.Node, Node: kube.Object.GetName, Compose: alone(nodeObject), Hides: wire.KindPeer},
		{Kind: wire.KindPeer, GVK: kube.Node, All: true, Compose: alone(peerObject)},
		{Kind: wire.KindService, GVK: kube.Service, All: true, BeforePods: true, Compose: serviceWithSlices, Part: kube.EndpointSlice, PartOf: sliceService},
		{Kind: wire.KindConfigMap, GVK: kube.ConfigMap, Refs: inNamespaceOf(core.PodConfigMaps), Compose: alone(configMapObject)},
		{Kind: wire.KindSecret, GVK: kube.Secret, Refs: inNamespaceOf(core.PodSecrets), Compose: alone(secretObject)},
		{Kind: wire.KindRuntimeClass, GVK: kube.RuntimeClass, Refs: runtimeClass, Compose: alone(runtimeClassObject)},
		{Kind: wire.KindClaim, GVK: kube.PersistentVolumeClaim, Refs: inNamespaceOf(kube.PodClaims), With: claimVolume, Compose: claimObject},
		{Kind: wire.KindReclaim, GVK: kube.PersistentVolume, Node: reclaimer, Compose: alone(reclaimObject)},
	}
}

// alone returns the Compose of a source whose objects are made of one object each.
func alone[T kube.Object](f func(T) (*wire.Object, error)) func(kube.Object, []kube.Object) (*wire.Object, error) {
	return func(o kube.Object, _ []kube.Object) (*wire.Object, error) { return f(o.(T)) }
}

func podNode(o kube.Object) string { return o.(*corev1.Pod).Spec.NodeName }

// inNamespaceOf returns the Refs of a kind whose objects pods name within their own namespace.
func inNamespaceOf(list func(*corev1.Pod) []string) func(p *corev1.Pod) []types.NamespacedName {
	return func(p *corev1.Pod) (refs []types.NamespacedName) {
		for _, name := range list(p) {
			refs = append(refs, types.NamespacedName{Namespace: p.Namespace, Name: name})
		}
		return refs
	}
}

// runtimeClass returns the class that a pod names, if any.
func runtimeClass(p *corev1.Pod) []types.NamespacedName {
	if p.Spec.RuntimeClassName == nil {
		return nil
	}
	return []types.NamespacedName{{Name: *p.Spec.RuntimeClassName}}
}

func serviceWithSlices(o kube.Object, parts []kube.Object) (*wire.Object, error) {
	slices := make([]*discoveryv1.EndpointSlice, len(parts))
	for i, p := range parts {
		slices[i] = p.(*discoveryv1.EndpointSlice)
	}
	return serviceObject(o.(*corev1.Service), slices)
}

// sliceService returns the Service that an EndpointSlice belongs to.
func sliceService(part kube.Object) types.NamespacedName {
	name := part.GetLabels()[discoveryv1.LabelServiceName]
	if name == "" {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: part.GetNamespace(), Name: name}
}

package resource

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	// Each fills the scheme with one group: served types, internal types, conversion, defaulting.
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install" // Scale
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"

	"petrel.dev/petrel/internal/kube"
)

// builtin declares the kinds in the order that discovery shows them.
func builtin() []*Kind {
	event := eventKind()
	return []*Kind{
		configMapKind(),
		endpointsKind(),
		event,
		limitRangeKind(),
		namespaceKind(),
		nodeKind(),
		podKind(),
		podTemplateKind(),
		resourceQuotaKind(),
		secretKind(),
		serviceAccountKind(),
		serviceKind(),
		controllerRevisionKind(),
		deploymentKind(),
		replicaSetKind(),
		selfSubjectReviewKind(),
		tokenReviewKind(),
		localSubjectAccessReviewKind(),
		selfSubjectAccessReviewKind(),
		selfSubjectRulesReviewKind(),
		subjectAccessReviewKind(),
		leaseKind(),
		endpointSliceKind(),
		eventViewKind(event),
		ingressKind(),
		ingressClassKind(),
		networkPolicyKind(),
		runtimeClassKind(),
		podDisruptionBudgetKind(),
		priorityClassKind(),
		csiNodeKind(),
		storageClassKind(),
		volumeAttachmentKind(),
	}
}

// nothingActs is the Inert of a kind whose controller is still to come.
const nothingActs = "nothing acts on it yet"

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// newKind fills in what every kind has in common, whatever the Go type of its objects.
func newKind(gvk schema.GroupVersionKind, plural, singular string) *Kind {
	k := &Kind{
		GVK:          gvk,
		Plural:       plural,
		Singular:     singular,
		Namespaced:   true,
		Verbs:        allVerbs,
		Subresources: map[string]*Subresource{},
		Indexes:      map[string]func(kube.Object) []string{"owner": owners},
	}
	k.selectFields(func(kube.Object, fields.Set) {})
	return k
}

// declare fills in what every kind of the scheme has in common. newObj makes the type that is stored, newList its list.
func declare(gvk schema.GroupVersionKind, plural, singular string, newObj func() kube.Object, newList func() runtime.Object) *Kind {
	k := newKind(gvk, plural, singular)
	k.Codec = schemeCodec{gvk}
	k.New = func() kube.Object {
		obj := newObj()
		obj.GetObjectKind().SetGroupVersionKind(gvk)
		return obj
	}
	k.NewList = func() runtime.Object {
		list := newList()
		list.GetObjectKind().SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		return list
	}
	k.Columns = func(ctx context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
		return table(k, objs, opts)
	}
	return k
}

func (k *Kind) clusterScoped() {
	k.Namespaced = false
	k.selectFields(func(kube.Object, fields.Set) {})
}

// selectFields declares the field selectors of the kind beyond its name and namespace.
func (k *Kind) selectFields(set func(obj kube.Object, into fields.Set), labels ...string) {
	k.FieldLabels = []string{"metadata.name"}
	if k.Namespaced {
		k.FieldLabels = append(k.FieldLabels, "metadata.namespace")
	}
	k.FieldLabels = append(k.FieldLabels, labels...)
	k.Fields = func(obj kube.Object) fields.Set {
		s := make(fields.Set, len(k.FieldLabels))
		s["metadata.name"] = obj.GetName()
		if k.Namespaced {
			s["metadata.namespace"] = obj.GetNamespace()
		}
		set(obj, s)
		return s
	}
}

// FieldSelector checks a field selector's keys and brings old spellings (pods: spec.host) to the ones that Fields uses.
// The error is upstream's text: "field label not supported: X".
func (k *Kind) FieldSelector(s fields.Selector) (fields.Selector, error) {
	return s.Transform(func(label, value string) (string, string, error) {
		if !k.Unstructured() {
			return Scheme().ConvertFieldLabel(k.GVK, label, value)
		}
		if slices.Contains(k.FieldLabels, label) {
			return label, value, nil
		}
		return "", "", fmt.Errorf("field label not supported: %s", label)
	})
}

// owners returns the UIDs of all owners.
func owners(obj kube.Object) []string {
	refs := obj.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, len(refs))
	for i := range refs {
		uids[i] = string(refs[i].UID)
	}
	return uids
}

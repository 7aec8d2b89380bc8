// Package applyset keeps track of objects that are applied together, so that one which is no longer in the files is deleted.
//
// It follows the ApplySet specification of Kubernetes (KEP-3659) as kubectl apply --applyset does, so that either of the two can go on
// with what the other has begun:
//
//	parent    an object, by default a Secret without data, with the label applyset.kubernetes.io/id and with annotations that name the
//	          kinds and namespaces in which members are
//	members   have the label applyset.kubernetes.io/part-of with the parent's id
//
// Before anything is applied, the parent names the kinds and namespaces of before and of now; afterwards those of now. So a run that
// is cut off in the middle loses no member.
package applyset

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"petrel.dev/petrel/internal/buildinfo"
)

// Labels and annotations of the specification.
const (
	idLabel        = "applyset.kubernetes.io/id"
	partOfLabel    = "applyset.kubernetes.io/part-of"
	toolAnnotation = "applyset.kubernetes.io/tooling"
	kindAnnotation = "applyset.kubernetes.io/contains-group-kinds"
	// oldKindAnnotation is what kubectl wrote in its place before v1.30: resources instead of kinds.
	oldKindAnnotation   = "applyset.kubernetes.io/contains-group-resources"
	namespaceAnnotation = "applyset.kubernetes.io/additional-namespaces"
	parentTypeLabel     = "applyset.kubernetes.io/is-parent-type" // of a CustomResourceDefinition
)

// tool is whose sets these are. A tool leaves those of others alone, so a set that kubectl shall be able to go on with is kubectl's.
const tool = "kubectl"

// fieldManager is under which name kubectl manages the parent's labels and annotations.
const fieldManager = tool + "-applyset"

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Set is one set of objects. One goroutine uses it.
type Set struct {
	client    dynamic.Interface
	mapper    meta.RESTMapper
	parent    *meta.RESTMapping
	name      string
	namespace string // of the parent; "" when its type has none
	old, now  scope
}

// scope is where members can be.
type scope struct {
	kinds      map[schema.GroupKind]*meta.RESTMapping
	namespaces map[string]bool
}

func newScope() scope {
	return scope{map[schema.GroupKind]*meta.RESTMapping{}, map[string]bool{}}
}

// Open reads the set whose parent is named as NAME (of a Secret) or TYPE[.GROUP]/NAME; namespace is where a parent of a namespaced
// type is. A parent that does not exist is made by Begin.
func Open(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, ref, namespace string) (*Set, error) {
	typ, name, ok := strings.Cut(ref, "/")
	if !ok {
		typ, name = "secrets", ref
	}
	if name == "" {
		return nil, fmt.Errorf("--applyset %q has no name: write NAME, or TYPE/NAME", ref)
	}
	gvk, err := mapper.KindFor(schema.ParseGroupResource(typ).WithVersion(""))
	if err != nil {
		return nil, fmt.Errorf("--applyset %s: %w", ref, err)
	}
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, fmt.Errorf("--applyset %s: %w", ref, err)
	}
	s := &Set{client: client, mapper: mapper, parent: mapping, name: name, old: newScope(), now: newScope()}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		s.namespace = namespace
	}
	if err := s.checkType(ctx); err != nil {
		return nil, err
	}
	return s, s.read(ctx)
}

// String returns the parent as it is named on the command line.
func (s *Set) String() string { return s.parent.Resource.GroupResource().String() + "/" + s.name }

// ID returns the label by which members are found, a hash of the parent's name, namespace and kind.
func (s *Set) ID() string {
	gk := s.parent.GroupVersionKind.GroupKind()
	sum := sha256.Sum256([]byte(strings.Join([]string{s.name, s.namespace, gk.Kind, gk.Group}, ".")))
	return "applyset-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-v1"
}

func (s *Set) builtin() bool {
	gr := s.parent.Resource.GroupResource()
	return gr == schema.GroupResource{Resource: "secrets"} || gr == schema.GroupResource{Resource: "configmaps"}
}

// checkType refuses parents of types that are not meant for it.
func (s *Set) checkType(ctx context.Context) error {
	if s.builtin() {
		return nil
	}
	gr := s.parent.Resource.GroupResource()
	crd, err := s.client.Resource(crds).Get(ctx, gr.String(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("--applyset %s: %w", s, err)
	}
	may := false
	if err == nil {
		_, may = crd.GetLabels()[parentTypeLabel]
	}
	if !may {
		return fmt.Errorf("--applyset %s: the parent of a set is a Secret, a ConfigMap, or of a custom type whose CustomResourceDefinition has the label %s", s, parentTypeLabel)
	}
	return nil
}

func (s *Set) parents() dynamic.ResourceInterface {
	if s.namespace == "" {
		return s.client.Resource(s.parent.Resource)
	}
	return s.client.Resource(s.parent.Resource).Namespace(s.namespace)
}

// read takes over where members can be from the parent, if there is one.
func (s *Set) read(ctx context.Context) error {
	o, err := s.parents().Get(ctx, s.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && s.builtin():
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("--applyset %s: there is no such object, and only Secrets and ConfigMaps are made for it: make it first", s)
	case err != nil:
		return fmt.Errorf("--applyset %s: %w", s, err)
	}
	annotations := o.GetAnnotations()
	by, _, _ := strings.Cut(annotations[toolAnnotation], "/")
	switch id := o.GetLabels()[idLabel]; {
	case annotations[toolAnnotation] == "" || id == "":
		return fmt.Errorf("--applyset %s: the object exists, and is no parent of a set: choose another name", s)
	case by != tool:
		return fmt.Errorf("--applyset %s: the set belongs to %q, which alone may change it", s, annotations[toolAnnotation])
	case id != s.ID():
		return fmt.Errorf("--applyset %s: its label %s is %s, where %s belongs; was it copied from another object?", s, idLabel, id, s.ID())
	}
	if s.namespace != "" {
		s.old.namespaces[s.namespace] = true
	}
	for ns := range strings.SplitSeq(annotations[namespaceAnnotation], ",") {
		if ns != "" {
			s.old.namespaces[ns] = true
		}
	}
	return s.readKinds(annotations)
}

// readKinds takes over the kinds. One that the server does not serve any more has no objects, and is left out.
func (s *Set) readKinds(annotations map[string]string) error {
	kinds, ok := annotations[kindAnnotation]
	var gks []schema.GroupKind
	for text := range strings.SplitSeq(kinds, ",") {
		if text != "" {
			gks = append(gks, schema.ParseGroupKind(text))
		}
	}
	if !ok {
		resources, ok := annotations[oldKindAnnotation]
		if !ok {
			return fmt.Errorf("--applyset %s: the object has no annotation %s, so nobody knows where its members are", s, kindAnnotation)
		}
		for text := range strings.SplitSeq(resources, ",") {
			if text == "" {
				continue
			}
			gvk, err := s.mapper.KindFor(schema.ParseGroupResource(text).WithVersion(""))
			if err != nil && !meta.IsNoMatchError(err) {
				return err
			}
			if err == nil {
				gks = append(gks, gvk.GroupKind())
			}
		}
	}
	for _, gk := range gks {
		m, err := s.mapper.RESTMapping(gk)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return err
		}
		s.old.kinds[gk] = m
	}
	return nil
}

// Add takes an object of the files into the set. It is not sent yet; its namespace is set.
func (s *Set) Add(m *meta.RESTMapping, o *unstructured.Unstructured) error {
	labels := o.GetLabels()
	if labels[partOfLabel] != "" {
		return fmt.Errorf("it has the label %s already, which --applyset sets: take it out of the file", partOfLabel)
	}
	if labels == nil {
		labels = map[string]string{}
	}
	labels[partOfLabel] = s.ID()
	o.SetLabels(labels)
	s.now.kinds[m.GroupVersionKind.GroupKind()] = m
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		s.now.namespaces[o.GetNamespace()] = true
	}
	return nil
}

// Begin writes the parent, with where members were and where they will be. With dry the server only checks it.
func (s *Set) Begin(ctx context.Context, dry bool) error {
	both := newScope()
	for _, from := range []scope{s.old, s.now} {
		maps.Copy(both.kinds, from.kinds)
		maps.Copy(both.namespaces, from.namespaces)
	}
	return s.write(ctx, both, dry)
}

// End writes the parent, with where members are after all others have been deleted.
func (s *Set) End(ctx context.Context, dry bool) error { return s.write(ctx, s.now, dry) }

func (s *Set) write(ctx context.Context, at scope, dry bool) error {
	var kinds, namespaces []string
	for gk := range at.kinds {
		kinds = append(kinds, gk.String())
	}
	for ns := range at.namespaces {
		if ns != s.namespace {
			namespaces = append(namespaces, ns)
		}
	}
	slices.Sort(kinds)
	slices.Sort(namespaces)
	object := map[string]any{
		"apiVersion": s.parent.GroupVersionKind.GroupVersion().String(), "kind": s.parent.GroupVersionKind.Kind,
		"metadata": map[string]any{
			"name": s.name, "labels": map[string]any{idLabel: s.ID()},
			"annotations": map[string]any{
				toolAnnotation: tool + "/" + buildinfo.Kubernetes, kindAnnotation: strings.Join(kinds, ","), namespaceAnnotation: strings.Join(namespaces, ","),
			},
		},
	}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	force := true // these fields are the specification's
	opts := metav1.PatchOptions{FieldManager: fieldManager, Force: &force}
	if dry {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	if _, err := s.parents().Patch(ctx, s.name, types.ApplyYAMLPatchType, body, opts); err != nil {
		return fmt.Errorf("--applyset %s: %w", s, err)
	}
	return nil
}

// Member is an object that has the set's label.
type Member struct {
	Object  *unstructured.Unstructured
	Mapping *meta.RESTMapping
}

// Members returns the members that keep does not want, ordered by kind, namespace and name.
func (s *Set) Members(ctx context.Context, keep func(Member) bool) (out []Member, err error) {
	gks := slices.SortedFunc(maps.Keys(s.old.kinds), func(a, b schema.GroupKind) int { return strings.Compare(a.String(), b.String()) })
	for _, gk := range gks {
		m := s.old.kinds[gk]
		where := []string{""}
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			where = slices.Sorted(maps.Keys(s.old.namespaces))
		}
		for _, ns := range where {
			list, err := s.client.Resource(m.Resource).Namespace(ns).List(ctx, metav1.ListOptions{LabelSelector: partOfLabel + "=" + s.ID()})
			if err != nil {
				return nil, fmt.Errorf("members of %s: %w", s, err)
			}
			for i := range list.Items {
				if member := (Member{&list.Items[i], m}); !keep(member) {
					out = append(out, member)
				}
			}
		}
	}
	return out, nil
}

// Prune deletes members, in their order, and reports each. One that is gone, or has been made anew since it was listed, is left alone.
func (s *Set) Prune(ctx context.Context, members []Member, dry bool, report func(Member)) error {
	policy := metav1.DeletePropagationBackground
	var errs []error
	for _, m := range members {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		uid := m.Object.GetUID()
		opts := metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}}
		if dry {
			opts.DryRun = []string{metav1.DryRunAll}
		}
		err := s.client.Resource(m.Mapping.Resource).Namespace(m.Object.GetNamespace()).Delete(ctx, m.Object.GetName(), opts)
		switch {
		case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		case err != nil:
			errs = append(errs, err)
		default:
			report(m)
		}
	}
	return errors.Join(errs...)
}

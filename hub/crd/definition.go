package crd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/version"

	"petrel.dev/petrel/hub/crd/conversion"
	"petrel.dev/petrel/hub/resource"
)

// definition is one generation of a CustomResourceDefinition that is served: what the kinds of its versions share. All but
// terminating and unfollow is set by newDefinition and does not change.
type definition struct {
	name       string
	uid        types.UID
	generation int64
	names      apiextensionsv1.CustomResourceDefinitionNames // those that it has been given

	schemas   *schemas
	converter *conversion.Converter
	kinds     []*resource.Kind // the stored version first, and all others; none when Kubernetes itself has the resource
	// terminating is set while objects are deleted together with their definition: no more can be created.
	terminating atomic.Bool
	// unfollow ends the subscription to its objects; nil: there is none. Guarded by Controller.mu.
	unfollow context.CancelFunc
}

var _ resource.Versions = (*definition)(nil)

// newDefinition declares the kinds of crd, which has no schemas and is only read.
func newDefinition(crd *apiextensionsv1.CustomResourceDefinition, cfg Config, s *schemas) *definition {
	d := &definition{
		name: crd.Name, uid: crd.UID, generation: crd.Generation, names: *crd.Status.AcceptedNames.DeepCopy(),
		schemas: s, converter: conversion.New(crd.Spec.Conversion.DeepCopy(), cfg.Webhooks),
	}
	d.terminating.Store(crd.DeletionTimestamp != nil)
	var stored *resource.Kind
	for _, v := range storedFirst(crd.Spec.Versions) {
		k := d.declare(crd, v, stored)
		if cfg.Meta != nil {
			k.TypeConverter = func() (managedfields.TypeConverter, error) { return d.typeConverter(cfg, k.GVK) }
		}
		if v.Storage {
			stored = k
		}
		d.kinds = append(d.kinds, k)
	}
	return d
}

// storedFirst returns the versions in the order in which kinds are declared: the others refer to the stored one.
func storedFirst(versions []apiextensionsv1.CustomResourceDefinitionVersion) []apiextensionsv1.CustomResourceDefinitionVersion {
	out := slices.Clone(versions)
	slices.SortStableFunc(out, func(a, b apiextensionsv1.CustomResourceDefinitionVersion) int {
		switch {
		case a.Storage == b.Storage:
			return version.CompareKubeAwareVersionStrings(b.Name, a.Name)
		case a.Storage:
			return -1
		}
		return 1
	})
	return out
}

// declare returns the kind of one version. stored is nil for the one that is stored itself.
func (d *definition) declare(crd *apiextensionsv1.CustomResourceDefinition, v apiextensionsv1.CustomResourceDefinitionVersion, stored *resource.Kind) *resource.Kind {
	gvk := schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: d.names.Kind}
	k := resource.Custom{
		GVK: gvk, Plural: d.names.Plural, Singular: d.names.Singular, ListKind: d.names.ListKind,
		ShortNames: d.names.ShortNames, Categories: d.names.Categories,
		Namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		Status:     v.Subresources != nil && v.Subresources.Status != nil,
		Versions:   d, StoredAs: stored,
	}.Kind()
	k.Unserved = !v.Served
	k.Closing = d.closing
	k.Describe = d.describe(v.Name)
	k.Columns = columns(v.AdditionalPrinterColumns)
	if v.Subresources != nil && v.Subresources.Scale != nil {
		k.Subresources["scale"] = scale(v.Subresources.Scale.DeepCopy())
	}
	if len(v.SelectableFields) > 0 {
		selectFields(k, v.SelectableFields)
	}
	if v.Deprecated {
		k.Deprecated = deprecation(crd, v)
	}
	return k
}

// deprecation returns the warning of a deprecated version.
func deprecation(crd *apiextensionsv1.CustomResourceDefinition, v apiextensionsv1.CustomResourceDefinitionVersion) string {
	if v.DeprecationWarning != nil {
		return *v.DeprecationWarning
	}
	group, kind := crd.Spec.Group, crd.Spec.Names.Kind
	text, best := fmt.Sprintf("%s/%s %s is deprecated", group, v.Name, kind), ""
	for _, o := range crd.Spec.Versions {
		if o.Served && !o.Deprecated && version.CompareKubeAwareVersionStrings(v.Name, o.Name) < 0 && (best == "" || version.CompareKubeAwareVersionStrings(best, o.Name) < 0) {
			best = o.Name
		}
	}
	if best != "" {
		text += fmt.Sprintf("; use %s/%s %s", group, best, kind)
	}
	return text
}

// same reports whether d, which may be nil, serves crd as it is now.
func (d *definition) same(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return d != nil && d.uid == crd.UID && d.generation == crd.Generation && apiequality.Semantic.DeepEqual(d.names, crd.Status.AcceptedNames)
}

// gvks returns the kinds that are served.
func (d *definition) gvks() []schema.GroupVersionKind {
	out := make([]schema.GroupVersionKind, len(d.kinds))
	for i, k := range d.kinds {
		out[i] = k.GVK
	}
	return out
}

// stored returns the kind of the objects in the store; nil when Kubernetes itself has the resource.
func (d *definition) stored() *resource.Kind {
	if len(d.kinds) == 0 {
		return nil
	}
	return d.kinds[0]
}

// closing returns why no object can be created.
func (d *definition) closing() string {
	if d.terminating.Load() {
		return "create not allowed while custom resource definition is terminating"
	}
	return ""
}

// Schema implements resource.Versions.
func (d *definition) Schema(ctx context.Context, version string) (resource.Schema, error) {
	s, err := d.schemas.get(ctx, d, version)
	if err != nil {
		return nil, err // not the nil pointer that s is
	}
	return s, nil
}

// Convert implements resource.Versions.
func (d *definition) Convert(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	return d.converter.Convert(ctx, objs, to)
}

// close ends what belongs to a definition that is no longer served. Controller.mu is held.
func (d *definition) close() {
	if d.unfollow != nil {
		d.unfollow()
	}
	d.schemas.forget(d)
}

// groupOf returns the group of a definition by its name, PLURAL.GROUP.
func groupOf(name string) string {
	_, group, _ := strings.Cut(name, ".")
	return group
}

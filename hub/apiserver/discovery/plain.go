package discovery

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// Groups returns the plain list of groups: all but the core group, which has an address of its own.
func (x *Index) Groups() *metav1.APIGroupList {
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for _, g := range x.groups {
		if g.Name != "" {
			list.Groups = append(list.Groups, apiGroup(g))
		}
	}
	return list
}

// Group returns the plain document of one group; ok is false when it is not served.
func (x *Index) Group(name string) (doc *metav1.APIGroup, ok bool) {
	g := x.group(name)
	if g == nil || name == "" {
		return nil, false
	}
	out := apiGroup(*g)
	out.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	return &out, true
}

// Resources returns the plain document of one version; ok is false when it is not served.
func (x *Index) Resources(gv schema.GroupVersion) (doc *metav1.APIResourceList, ok bool) {
	v := x.served(gv)
	if v == nil {
		return nil, false
	}
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	if gv.Group == "" {
		list.APIVersion = ""
	}
	if v.remote != nil {
		list.APIResources = append(list.APIResources, v.remote.Resources...)
	}
	for _, k := range v.kinds {
		list.APIResources = append(list.APIResources, apiResources(k)...)
	}
	slices.SortFunc(list.APIResources, func(a, b metav1.APIResource) int { return strings.Compare(a.Name, b.Name) })
	return list, true
}

func apiGroup(g Group) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.Name}
	for _, v := range g.Versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.String(), Version: v.Version})
	}
	out.PreferredVersion = out.Versions[0] // a group in the index has at least one
	return out
}

func apiResources(k *resource.Kind) []metav1.APIResource {
	out := []metav1.APIResource{{
		Name: k.Plural, SingularName: k.Singular, Namespaced: k.Namespaced, Kind: k.GVK.Kind,
		Verbs: sortedVerbs(k.Verbs), ShortNames: k.ShortNames, Categories: k.Categories,
		StorageVersionHash: storageHash(k),
	}}
	for _, name := range subNames(k) {
		s := k.Subresources[name]
		r := metav1.APIResource{Name: k.Plural + "/" + name, Namespaced: k.Namespaced, Kind: subGVK(k, s).Kind, Verbs: subVerbs(s)}
		if gvk := subGVK(k, s); gvk.GroupVersion() != k.GVK.GroupVersion() {
			r.Group, r.Version = gvk.Group, gvk.Version
		}
		out = append(out, r)
	}
	return out
}

func subNames(k *resource.Kind) []string {
	names := make([]string, 0, len(k.Subresources))
	for n := range k.Subresources {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// subGVK returns the kind of the subresource's body: its own, or the parent's.
func subGVK(k *resource.Kind, s *resource.Subresource) schema.GroupVersionKind {
	if s.GVK.Empty() {
		return k.GVK
	}
	return s.GVK
}

// subVerbs returns the verbs of a subresource: a stream is opened by POST, and by GET for a WebSocket.
func subVerbs(s *resource.Subresource) metav1.Verbs {
	if s.Connect && len(s.Verbs) == 0 {
		return metav1.Verbs{"create", "get"}
	}
	return sortedVerbs(s.Verbs)
}

// sortedVerbs returns a sorted copy: declarations are shared.
func sortedVerbs(v []string) metav1.Verbs {
	out := slices.Clone(v)
	slices.Sort(out)
	return out
}

// storageHash returns a value that is equal for resources that are stored as one, so that clients can see that; "" for what is not
// stored. It is Kubernetes' own for that version.
func storageHash(k *resource.Kind) string {
	if k.Virtual() {
		return ""
	}
	stored := k
	if k.StoredAs != nil {
		stored = k.StoredAs
	}
	sum := sha256.Sum256([]byte(stored.GVK.Group + "/" + stored.GVK.Version + "/" + stored.GVK.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

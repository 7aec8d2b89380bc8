package discovery

import (
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"petrel.dev/petrel/hub/resource"
)

// Kinds are the served kinds, which may change at any time; *resource.Kinds is one.
type Kinds interface {
	// All lists them in order of preference. The slice is shared: read-only.
	All() []*resource.Kind
	// Generation is another number after each change.
	Generation() uint64
}

// Remotes are the API servers behind this one, which may change at any time; hub/aggregate has them.
type Remotes interface {
	Versions() []Remote
	// Generation is another number after each change.
	Generation() uint64
}

// Remote is one version of a group that another API server serves.
type Remote struct {
	schema.GroupVersion
	Resources []metav1.APIResource // as the server lists them; shared: read-only
	Current   bool                 // the server is there
}

// Index finds kinds by their path, and groups them in the order in which they are declared: that is the order of
// preference which discovery shows. It is immutable: after a change of the kinds the server makes another one.
type Index struct {
	generation uint64 // of the kinds and of the remotes together, read before them
	byPath     map[schema.GroupVersionResource]*resource.Kind
	groups     []Group
	api, apis  func() Aggregated // of /api and of /apis; made at the first call
}

// Group has the versions of one group; at least one.
type Group struct {
	Name     string // "" for the core group
	Versions []Version
}

// Version has the kinds of one version, in the order of their declaration.
type Version struct {
	schema.GroupVersion
	kinds  []*resource.Kind
	remote *Remote // nil: the version is of this server
}

// GenerationOf returns the generation that an index of kinds and remotes (nil: none) has now. Each of the two only grows.
func GenerationOf(kinds Kinds, remotes Remotes) uint64 {
	n := kinds.Generation()
	if remotes != nil {
		n += remotes.Generation()
	}
	return n
}

// NewIndex returns the index of the kinds and of the remotes, nil for none. It reads the generation first: when the kinds change meanwhile, the index is out of
// date by its generation, and the next request makes another one.
func NewIndex(kinds Kinds, remotes Remotes) *Index {
	x := &Index{generation: GenerationOf(kinds, remotes), byPath: make(map[schema.GroupVersionResource]*resource.Kind)}
	for _, k := range kinds.All() {
		if k.Unserved {
			continue
		}
		x.byPath[k.GVR()] = k
		v := x.version(k.GVK.GroupVersion())
		v.kinds = append(v.kinds, k)
	}
	x.sortCustom()
	if remotes != nil { // they come in their order of preference
		for _, r := range remotes.Versions() {
			x.version(r.GroupVersion).remote = &r
		}
	}
	x.api = sync.OnceValue(func() Aggregated { return x.aggregate(func(g string) bool { return g == "" }) })
	x.apis = sync.OnceValue(func() Aggregated { return x.aggregate(func(g string) bool { return g != "" }) })
	return x
}

// sortCustom orders the groups of custom kinds by name, behind those of Kubernetes, and their versions by maturity: v1, v1beta1,
// v1alpha1. They were added as their definitions came.
func (x *Index) sortCustom() {
	custom := slices.IndexFunc(x.groups, Group.custom)
	if custom < 0 {
		return
	}
	slices.SortStableFunc(x.groups, func(a, b Group) int {
		switch {
		case a.custom() && b.custom():
			return strings.Compare(a.Name, b.Name)
		case a.custom():
			return 1
		case b.custom():
			return -1
		}
		return 0
	})
	for _, g := range x.groups[custom:] {
		slices.SortFunc(g.Versions, func(a, b Version) int { return version.CompareKubeAwareVersionStrings(b.Version, a.Version) })
	}
}

// custom reports whether all kinds of a group are custom ones.
func (g Group) custom() bool {
	for _, v := range g.Versions {
		for _, k := range v.kinds {
			if !k.Unstructured() {
				return false
			}
		}
	}
	return true
}

// Generation returns the generation of the kinds that the index was made of.
func (x *Index) Generation() uint64 { return x.generation }

// Kind returns the kind that is served at a path, nil when there is none.
func (x *Index) Kind(gvr schema.GroupVersionResource) *resource.Kind { return x.byPath[gvr] }

// All returns the groups in order of preference. The slice is shared: read-only.
func (x *Index) All() []Group { return x.groups }

// version returns the entry of gv, and adds it when there is none. It is for NewIndex only.
func (x *Index) version(gv schema.GroupVersion) *Version {
	g := x.group(gv.Group)
	if g == nil {
		x.groups = append(x.groups, Group{Name: gv.Group})
		g = &x.groups[len(x.groups)-1]
	}
	for i := range g.Versions {
		if g.Versions[i].GroupVersion == gv {
			return &g.Versions[i]
		}
	}
	g.Versions = append(g.Versions, Version{GroupVersion: gv})
	return &g.Versions[len(g.Versions)-1]
}

// group returns the entry of a group, nil when there is none.
func (x *Index) group(name string) *Group {
	for i := range x.groups {
		if x.groups[i].Name == name {
			return &x.groups[i]
		}
	}
	return nil
}

// served returns the entry of gv, nil when it has no kinds.
func (x *Index) served(gv schema.GroupVersion) *Version {
	if g := x.group(gv.Group); g != nil {
		for i := range g.Versions {
			if g.Versions[i].GroupVersion == gv {
				return &g.Versions[i]
			}
		}
	}
	return nil
}

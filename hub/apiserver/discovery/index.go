package discovery

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// Kinds are the served kinds, which may change at any time; *resource.Kinds is one.
type Kinds interface {
	// All lists them in order of preference. The slice is shared: read-only.
	All() []*resource.Kind
	// Generation is another number after each change.
	Generation() uint64
}

// Index finds kinds by their path, and groups them in the order in which they are declared: that is the order of
// preference which discovery shows. It is immutable: after a change of the kinds the server makes another one.
type Index struct {
	generation uint64 // of the kinds, read before them
	byPath     map[schema.GroupVersionResource]*resource.Kind
	groups     []Group
	api, apis  Aggregated // of /api and of /apis
}

// Group has the versions of one group; at least one.
type Group struct {
	Name     string // "" for the core group
	Versions []Version
}

// Version has the kinds of one version, in the order of their declaration.
type Version struct {
	schema.GroupVersion
	kinds []*resource.Kind
}

// NewIndex returns the index of the kinds. It reads the generation first: when the kinds change meanwhile, the index is out of
// date by its generation, and the next request makes another one.
func NewIndex(kinds Kinds) *Index {
	x := &Index{generation: kinds.Generation(), byPath: make(map[schema.GroupVersionResource]*resource.Kind)}
	for _, k := range kinds.All() {
		x.byPath[k.GVR()] = k
		v := x.version(k.GVK.GroupVersion())
		v.kinds = append(v.kinds, k)
	}
	x.api = x.aggregate(func(g string) bool { return g == "" })
	x.apis = x.aggregate(func(g string) bool { return g != "" })
	return x
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

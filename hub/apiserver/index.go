package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// kindIndex finds kinds by their path, and groups them in the order in which they are declared: that is the order of
// preference which discovery shows. It is immutable: after a change of the kinds the server makes another one.
type kindIndex struct {
	generation uint64 // of the kinds, read before them
	byPath     map[schema.GroupVersionResource]*resource.Kind
	groups     []groupKinds
	disco      *discovery
}

// groupKinds are the kinds of one group.
type groupKinds struct {
	name     string // "" for the core group
	versions []versionKinds
}

// versionKinds are the kinds of one version, in the order of their declaration.
type versionKinds struct {
	gv    schema.GroupVersion
	kinds []*resource.Kind
}

// newKindIndex returns the index of the kinds. It reads the generation first: when the kinds change meanwhile, the index is out of
// date by its generation, and the next request makes another one.
func newKindIndex(kinds Kinds) *kindIndex {
	x := &kindIndex{generation: kinds.Generation(), byPath: make(map[schema.GroupVersionResource]*resource.Kind)}
	for _, k := range kinds.All() {
		x.byPath[k.GVK.GroupVersion().WithResource(k.Plural)] = k
		v := x.version(k.GVK.GroupVersion())
		v.kinds = append(v.kinds, k)
	}
	x.disco = newDiscovery(x)
	return x
}

// kinds returns the index of what is served now.
func (s *server) kinds() *kindIndex {
	if x := s.index.Load(); x != nil && x.generation == s.Kinds.Generation() {
		return x
	}
	x := newKindIndex(s.Kinds)
	s.index.Store(x)
	return x
}

// version returns the entry of gv, and adds it when there is none. It is for newKindIndex only.
func (x *kindIndex) version(gv schema.GroupVersion) *versionKinds {
	g := x.group(gv.Group)
	if g == nil {
		x.groups = append(x.groups, groupKinds{name: gv.Group})
		g = &x.groups[len(x.groups)-1]
	}
	for i := range g.versions {
		if g.versions[i].gv == gv {
			return &g.versions[i]
		}
	}
	g.versions = append(g.versions, versionKinds{gv: gv})
	return &g.versions[len(g.versions)-1]
}

// group returns the entry of a group, nil when there is none.
func (x *kindIndex) group(name string) *groupKinds {
	for i := range x.groups {
		if x.groups[i].name == name {
			return &x.groups[i]
		}
	}
	return nil
}

// served returns the entry of gv, nil when it has no kinds.
func (x *kindIndex) served(gv schema.GroupVersion) *versionKinds {
	if g := x.group(gv.Group); g != nil {
		for i := range g.versions {
			if g.versions[i].gv == gv {
				return &g.versions[i]
			}
		}
	}
	return nil
}

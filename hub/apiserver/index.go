package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// kindIndex finds kinds by their path, and groups them in the order in which they are declared: that is the order of
// preference which discovery tells. It is made anew when the table has changed.
type kindIndex struct {
	all    []*resource.Kind
	byPath map[schema.GroupVersionResource]*resource.Kind
	groups []groupKinds
	disco  *discovery
}

type groupKinds struct {
	name     string
	versions []versionKinds
}

type versionKinds struct {
	gv    schema.GroupVersion
	kinds []*resource.Kind
}

func newKindIndex(all []*resource.Kind) *kindIndex {
	x := &kindIndex{all: all, byPath: make(map[schema.GroupVersionResource]*resource.Kind)}
	for _, k := range all {
		x.byPath[k.GVK.GroupVersion().WithResource(k.Plural)] = k
		v := x.version(k.GVK.GroupVersion())
		v.kinds = append(v.kinds, k)
	}
	x.disco = newDiscovery(x)
	return x
}

// kinds is the index of what the table holds now.
func (s *server) kinds() *kindIndex {
	x, all := s.index.Load(), s.Kinds.All()
	if x != nil && len(x.all) == len(all) && (len(all) == 0 || &x.all[0] == &all[0]) {
		return x // the table swaps in another slice when it changes
	}
	x = newKindIndex(all)
	s.index.Store(x)
	return x
}

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

func (x *kindIndex) group(name string) *groupKinds {
	for i := range x.groups {
		if x.groups[i].name == name {
			return &x.groups[i]
		}
	}
	return nil
}

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

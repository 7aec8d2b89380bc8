// Package once is discovery that asks the server once per command.
package once

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
)

// Discovery asks the server once, and keeps the answer for as long as the command runs. A disk cache would save one request and cost stale answers after a CRD
// was added; the hub answers aggregated discovery in a millisecond.
type Discovery struct {
	discovery.DiscoveryInterface

	mu        sync.Mutex
	fetched   bool
	groups    []*metav1.APIGroup
	resources []*metav1.APIResourceList
	err       error
}

// ServerGroupsAndResources implements discovery.DiscoveryInterface from the one answer.
func (d *Discovery) ServerGroupsAndResources() ([]*metav1.APIGroup, []*metav1.APIResourceList, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fetched {
		d.groups, d.resources, d.err = d.DiscoveryInterface.ServerGroupsAndResources()
		d.fetched = true
	}
	return d.groups, d.resources, d.err
}

// ServerPreferredResources implements discovery.DiscoveryInterface from the one answer, in the server's order of groups:
// the library's own comes from a map, and `get all` would print types in another order each time.
func (d *Discovery) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	lists, err := discovery.ServerPreferredResources(d)
	groups, _, _ := d.ServerGroupsAndResources() // the same answer; its error is in err already
	rank := map[string]int{}
	for _, g := range groups {
		for _, v := range g.Versions {
			rank[v.GroupVersion] = len(rank)
		}
	}
	slices.SortStableFunc(lists, func(a, b *metav1.APIResourceList) int { return rank[a.GroupVersion] - rank[b.GroupVersion] })
	return lists, err
}

// Fresh implements discovery.CachedDiscoveryInterface: the answer is of this very command.
func (d *Discovery) Fresh() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fetched
}

// Invalidate implements discovery.CachedDiscoveryInterface.
func (d *Discovery) Invalidate() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetched = false
}

package discovery

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/munnerz/goautoneg"
	discoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// Aggregated is one ready document with its ETag.
type Aggregated struct {
	Body []byte // JSON; shared: read-only
	ETag string
}

// AggregatedType is the media type of aggregated documents.
const AggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// Core returns the aggregated document of /api.
func (x *Index) Core() Aggregated { return x.api() }

// Named returns the aggregated document of /apis.
func (x *Index) Named() Aggregated { return x.apis() }

// WantsAggregated reports whether the client prefers the aggregated document: its Accept header names that before plain JSON.
func WantsAggregated(r *http.Request) bool {
	for _, c := range goautoneg.ParseAccept(r.Header.Get("Accept")) {
		if c.Type == "application" && c.SubType == "json" {
			switch c.Params["as"] {
			case "":
				return false
			case "APIGroupDiscoveryList":
				if c.Params["g"] == discoveryv2.GroupName && c.Params["v"] == "v2" {
					return true
				}
			}
		}
	}
	return false
}

// aggregate returns the aggregated document of the groups for which wanted returns true.
func (x *Index) aggregate(wanted func(group string) bool) Aggregated {
	list := discoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}, Items: []discoveryv2.APIGroupDiscovery{}}
	for _, g := range x.groups {
		if !wanted(g.Name) {
			continue
		}
		item := discoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.Name}}
		for _, v := range g.Versions {
			version := discoveryv2.APIVersionDiscovery{Version: v.Version, Freshness: discoveryv2.DiscoveryFreshnessCurrent}
			if v.remote != nil {
				version.Resources = remoteDiscovery(v.remote)
				if !v.remote.Current {
					version.Freshness = discoveryv2.DiscoveryFreshnessStale
				}
				item.Versions = append(item.Versions, version)
				continue
			}
			for _, k := range v.kinds {
				version.Resources = append(version.Resources, resourceDiscovery(k))
			}
			slices.SortFunc(version.Resources, func(a, b discoveryv2.APIResourceDiscovery) int { return strings.Compare(a.Resource, b.Resource) })
			item.Versions = append(item.Versions, version)
		}
		list.Items = append(list.Items, item)
	}
	body, err := json.Marshal(list)
	if err != nil {
		panic(fmt.Sprintf("the document has a JSON form: %v", err))
	}
	sum := sha512.Sum512(body)
	return Aggregated{Body: body, ETag: `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`}
}

func resourceDiscovery(k *resource.Kind) discoveryv2.APIResourceDiscovery {
	scope := discoveryv2.ScopeCluster
	if k.Namespaced {
		scope = discoveryv2.ScopeNamespace
	}
	out := discoveryv2.APIResourceDiscovery{
		Resource: k.Plural, SingularResource: k.Singular, Scope: scope, ResponseKind: metaGVK(k.GVK),
		Verbs: sortedVerbs(k.Verbs), ShortNames: k.ShortNames, Categories: k.Categories,
	}
	for _, name := range subNames(k) {
		s := k.Subresources[name]
		out.Subresources = append(out.Subresources, discoveryv2.APISubresourceDiscovery{
			Subresource: name, ResponseKind: metaGVK(subGVK(k, s)), Verbs: subVerbs(s),
		})
	}
	return out
}

// remoteDiscovery returns a plain list of resources in the form of the aggregated document.
func remoteDiscovery(r *Remote) (out []discoveryv2.APIResourceDiscovery) {
	at := map[string]int{}
	for _, res := range r.Resources {
		if strings.Contains(res.Name, "/") {
			continue
		}
		scope := discoveryv2.ScopeCluster
		if res.Namespaced {
			scope = discoveryv2.ScopeNamespace
		}
		at[res.Name] = len(out)
		out = append(out, discoveryv2.APIResourceDiscovery{Resource: res.Name, SingularResource: res.SingularName, Scope: scope,
			ResponseKind: r.kindOf(res), Verbs: res.Verbs, ShortNames: res.ShortNames, Categories: res.Categories})
	}
	for _, res := range r.Resources {
		parent, name, sub := strings.Cut(res.Name, "/")
		if i, ok := at[parent]; ok && sub {
			out[i].Subresources = append(out[i].Subresources, discoveryv2.APISubresourceDiscovery{Subresource: name, ResponseKind: r.kindOf(res), Verbs: res.Verbs})
		}
	}
	return out
}

// kindOf returns the kind of a resource; its group and version are the list's unless it says otherwise.
func (r *Remote) kindOf(res metav1.APIResource) *metav1.GroupVersionKind {
	out := &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: res.Kind}
	if res.Version != "" {
		out.Group, out.Version = res.Group, res.Version
	}
	return out
}

func metaGVK(g schema.GroupVersionKind) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Group: g.Group, Version: g.Version, Kind: g.Kind}
}

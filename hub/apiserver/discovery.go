package apiserver

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

// discovery answers what is served, as of one generation of the kinds. Plain answers are small and built for each request; the
// aggregated ones, which kubectl requests most, are kept. It is immutable.
type discovery struct {
	kinds     *kindIndex
	api, apis aggregated // of /api and of /apis
}

// aggregated is one ready document with its ETag.
type aggregated struct {
	body []byte
	etag string
}

const aggregatedType = mediaJSON + ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func newDiscovery(kinds *kindIndex) *discovery {
	d := &discovery{kinds: kinds}
	d.api = d.aggregate(func(g string) bool { return g == "" })
	d.apis = d.aggregate(func(g string) bool { return g != "" })
	return d
}

// serveRoot answers /api or /apis: aggregated, with an ETag, or as the plain list.
func (d *discovery) serveRoot(x *exchange, root string) {
	doc := d.api
	if root == "apis" {
		doc = d.apis
	}
	x.w.Header().Add("Vary", "Accept")
	if wantsAggregated(x.r) {
		x.w.Header().Set("ETag", doc.etag)
		if x.r.Header.Get("If-None-Match") == doc.etag {
			x.w.WriteHeader(http.StatusNotModified)
			return
		}
		x.writeBytes(http.StatusOK, aggregatedType, doc.body)
		return
	}
	if root == "api" {
		x.writeDiscovery(&metav1.APIVersions{
			TypeMeta:                   metav1.TypeMeta{Kind: "APIVersions"},
			Versions:                   []string{"v1"},
			ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: x.r.Host}},
		})
		return
	}
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for _, g := range d.kinds.groups {
		if g.name != "" {
			list.Groups = append(list.Groups, apiGroup(g))
		}
	}
	x.writeDiscovery(list)
}

// wantsAggregated reports whether the client prefers the aggregated document: its Accept header names that before plain JSON.
func wantsAggregated(r *http.Request) bool {
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

// serveGroup answers /apis/GROUP.
func (d *discovery) serveGroup(x *exchange, name string) {
	g := d.kinds.group(name)
	if g == nil || name == "" {
		x.fail(errNoSuchPath())
		return
	}
	out := apiGroup(*g)
	out.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	x.writeDiscovery(&out)
}

// serveVersion answers /api/v1 and /apis/GROUP/VERSION.
func (d *discovery) serveVersion(x *exchange, gv schema.GroupVersion) {
	v := d.kinds.served(gv)
	if v == nil {
		x.fail(errNoSuchPath())
		return
	}
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	if gv.Group == "" {
		list.APIVersion = ""
	}
	for _, k := range v.kinds {
		list.APIResources = append(list.APIResources, apiResources(k)...)
	}
	slices.SortFunc(list.APIResources, func(a, b metav1.APIResource) int { return strings.Compare(a.Name, b.Name) })
	x.writeDiscovery(list)
}

func (x *exchange) writeDiscovery(v any) {
	out, err := x.negotiate()
	if err != nil || out.as != "" || out.media == mediaProtobuf {
		// A client cannot negotiate before it has discovery: it is always answered, in JSON.
		out = output{media: mediaJSON}
	}
	x.writeJSONAs(out, v)
}

func apiGroup(g groupKinds) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.gv.String(), Version: v.gv.Version})
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
// stored.
func storageHash(k *resource.Kind) string {
	if k.Virtual() {
		return ""
	}
	stored := k
	if k.StoredAs != nil {
		stored = k.StoredAs
	}
	sum := sha512.Sum512([]byte(stored.GVK.String()))
	return hex.EncodeToString(sum[:6])
}

// aggregate returns the aggregated document of the groups for which wanted returns true.
func (d *discovery) aggregate(wanted func(group string) bool) aggregated {
	list := discoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}, Items: []discoveryv2.APIGroupDiscovery{}}
	for _, g := range d.kinds.groups {
		if !wanted(g.name) {
			continue
		}
		item := discoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			version := discoveryv2.APIVersionDiscovery{Version: v.gv.Version, Freshness: discoveryv2.DiscoveryFreshnessCurrent}
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
		panic(fmt.Sprintf("apiserver: discovery has a JSON form: %v", err))
	}
	sum := sha512.Sum512(body)
	return aggregated{body: body, etag: `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`}
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

func metaGVK(g schema.GroupVersionKind) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Group: g.Group, Version: g.Version, Kind: g.Kind}
}

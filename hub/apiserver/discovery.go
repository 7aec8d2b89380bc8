package apiserver

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/apiserver/discovery"
	"petrel.dev/petrel/hub/apiserver/media"
)

// kinds returns the index of what is served now.
func (s *server) kinds() *discovery.Index {
	if x := s.index.Load(); x != nil && x.Generation() == discovery.GenerationOf(s.Kinds, s.remotes()) {
		return x
	}
	x := discovery.NewIndex(s.Kinds, s.remotes())
	s.index.Store(x)
	return x
}

// serveRoot answers /api or /apis: aggregated, with an ETag, or as the plain list.
func (x *exchange) serveRoot(root string) {
	index := x.s.kinds()
	x.w.Header().Add("Vary", "Accept")
	if discovery.WantsAggregated(x.r) {
		doc := index.Core()
		if root == "apis" {
			doc = index.Named()
		}
		x.w.Header().Set("ETag", doc.ETag)
		if x.r.Header.Get("If-None-Match") == doc.ETag {
			x.w.WriteHeader(http.StatusNotModified)
			return
		}
		x.writeBytes(http.StatusOK, discovery.AggregatedType, doc.Body)
		return
	}
	if root == "apis" {
		x.writeDiscovery(index.Groups(), true)
		return
	}
	x.writeDiscovery(&metav1.APIVersions{
		TypeMeta:                   metav1.TypeMeta{Kind: "APIVersions"},
		Versions:                   []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: x.r.Host}},
	}, true)
}

// serveGroup answers /apis/GROUP.
func (x *exchange) serveGroup(name string) {
	doc, ok := x.s.kinds().Group(name)
	x.writeDiscovery(doc, ok)
}

// serveVersion answers /api/v1 and /apis/GROUP/VERSION.
func (x *exchange) serveVersion(gv schema.GroupVersion) {
	doc, ok := x.s.kinds().Resources(gv)
	x.writeDiscovery(doc, ok)
}

// writeDiscovery answers with a plain document, or that there is none.
func (x *exchange) writeDiscovery(doc any, found bool) {
	if !found {
		x.fail(errNoSuchPath())
		return
	}
	out, err := x.negotiate()
	if err != nil || out.As != "" || out.Media == media.Protobuf {
		// A client cannot negotiate before it has discovery: it is always answered, in JSON.
		out = media.Form{Media: media.JSON}
	}
	x.writeJSONAs(out, doc)
}

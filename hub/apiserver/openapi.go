package apiserver

import (
	"net/http"
	"strings"

	"github.com/munnerz/goautoneg"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/apiserver/media"
)

// OpenAPI returns the schemas of the served kinds; hub/resource/openapi is one. To build them is expensive, so it happens at the
// first request, and only compressed bytes are kept.
type OpenAPI interface {
	// GroupVersions lists the documents of version 3: path below /openapi/v3 ("api/v1", "apis/apps/v1") and content hash.
	GroupVersions() (map[string]string, error)
	// V3 returns one of them, as gzip'd JSON or protobuf; ok is false when it is not served.
	V3(gv schema.GroupVersion, protobuf bool) (gzip []byte, etag string, ok bool, err error)
	// V2 returns the one document of version 2, in the same way.
	V2(protobuf bool) (gzip []byte, etag string, err error)
}

const (
	openAPIv2Proto = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	openAPIv3Proto = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

func (s *server) serveOpenAPI(x *exchange, p []string) {
	switch {
	case s.OpenAPI == nil || len(p) == 0:
		x.fail(errNoSuchPath())
	case p[0] == "v2" && len(p) == 1:
		proto, contentType, ok := openAPIForm(x.r, "v2")
		if !ok {
			x.fail(media.NotAcceptable("", media.All...))
			return
		}
		doc, tag, err := s.OpenAPI.V2(proto)
		x.writeDocument(doc, tag, contentType, err)
	case p[0] == "v3" && len(p) == 1:
		x.openAPIRoot()
	case p[0] == "v3":
		gv, ok := groupVersionOf(p[1:])
		if !ok {
			x.fail(errNoSuchPath())
			return
		}
		proto, contentType, ok := openAPIForm(x.r, "v3")
		if !ok {
			x.fail(media.NotAcceptable("", media.All...))
			return
		}
		doc, tag, found, err := s.OpenAPI.V3(gv, proto)
		if err == nil && !found {
			err = errNoSuchPath()
		}
		x.writeDocument(doc, tag, contentType, err)
	default:
		x.fail(errNoSuchPath())
	}
}

// openAPIRoot answers with the address of each group-version's document. The address has the document's hash, so that clients may
// cache it.
func (x *exchange) openAPIRoot() {
	hashes, err := x.s.OpenAPI.GroupVersions()
	if err != nil {
		x.fail(err)
		return
	}
	type item struct {
		ServerRelativeURL string `json:"serverRelativeURL"`
	}
	paths := make(map[string]item, len(hashes))
	for path, hash := range hashes {
		paths[path] = item{"/openapi/v3/" + path + "?hash=" + hash}
	}
	if remotes := x.s.remotes(); remotes != nil {
		for _, r := range remotes.Versions() {
			if path := "apis/" + r.Group + "/" + r.Version; r.Current { // its own server has the document, and says when it changes
				paths[path] = item{"/openapi/v3/" + path}
			}
		}
	}
	x.writeJSON(http.StatusOK, map[string]any{"paths": paths})
}

// groupVersionOf returns the group-version of a path below /openapi/v3; ok is false when it has none.
func groupVersionOf(p []string) (schema.GroupVersion, bool) {
	switch {
	case len(p) == 2 && p[0] == "api":
		return schema.GroupVersion{Version: p[1]}, true
	case len(p) == 3 && p[0] == "apis":
		return schema.GroupVersion{Group: p[1], Version: p[2]}, true
	}
	return schema.GroupVersion{}, false
}

// openAPIForm negotiates between JSON and gnostic's protobuf form of the document.
func openAPIForm(r *http.Request, version string) (protobuf bool, contentType string, ok bool) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		return false, media.JSON, true
	}
	for _, c := range goautoneg.ParseAccept(accept) {
		sub := strings.ReplaceAll(c.SubType, "@v1.0", ".v1.0")
		switch {
		case c.Type == "*" || c.Type == "application" && (c.SubType == "*" || c.SubType == "json"):
			return false, media.JSON, true
		case c.Type == "application" && sub == "com.github.proto-openapi.spec."+version+".v1.0+protobuf":
			if version == "v2" {
				return true, openAPIv2Proto, true
			}
			return true, openAPIv3Proto, true
		}
	}
	return false, "", false
}

// writeDocument answers with a compressed document. With the right ?hash it may be cached for good, because the address then names
// its content; with another one the client is redirected.
func (x *exchange) writeDocument(doc []byte, tag, contentType string, err error) {
	if err != nil {
		x.fail(err)
		return
	}
	h := x.w.Header()
	etag := `"` + tag + `"`
	h.Set("ETag", etag)
	h.Add("Vary", "Accept-Encoding")
	h.Add("Vary", "Accept")
	if hash := x.query.Get("hash"); hash != "" {
		if hash != tag {
			u := *x.r.URL
			q := u.Query()
			q.Set("hash", tag)
			u.RawQuery = q.Encode()
			http.Redirect(x.w, x.r, u.String(), http.StatusMovedPermanently)
			return
		}
		h.Set("Cache-Control", "public, immutable")
		h.Set("Expires", "Thu, 31 Dec 2099 23:59:59 GMT")
	}
	if x.r.Header.Get("If-None-Match") == etag {
		x.w.WriteHeader(http.StatusNotModified)
		return
	}
	x.writeCompressed(contentType, doc)
}

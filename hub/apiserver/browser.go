package apiserver

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// crossSite refuses requests that a page of another site makes with the user's client certificate (CSRF). Browsers send
// certificates, unlike tokens, without being asked; they also send the origin of a request. Reads are harmless: the browser does
// not show their answer to the page.
func (x *exchange) crossSite() error {
	r := x.r
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.Header.Get("Authorization") != "" {
		return nil // no credentials that a browser sends by itself
	}
	upgrade := r.Header.Get("Upgrade") != "" || r.Method == http.MethodConnect
	if (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) && !upgrade {
		return nil
	}
	site := r.Header.Get("Sec-Fetch-Site")
	foreign := site == "cross-site" || site == "same-site"
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		foreign = foreign || err != nil || !strings.EqualFold(u.Host, r.Host) && !(site == "" && ownMachine(u))
	}
	if !foreign {
		return nil
	}
	return apierrors.NewForbidden(schema.GroupResource{}, "", errors.New(
		"a page of another site may not use a client certificate that the browser sends by itself; use a token, or a program that is no browser"))
}

// ownMachine reports whether an Origin is a page of the user's own machine, which WebSocket libraries outside of
// browsers also send, since they have to send one. A browser adds Sec-Fetch-Site, and then that decides.
func ownMachine(origin *url.URL) bool {
	addr, err := netip.ParseAddr(origin.Hostname())
	return origin.Scheme == "http" && (origin.Hostname() == "localhost" || err == nil && addr.IsLoopback())
}

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

// crossSite refuses what a page of another site has a browser do with the user's client certificate. Browsers send
// certificates, unlike tokens, by themselves; they also say where a request comes from. Reading is harmless: the page is
// not shown the answer.
func (x *exchange) crossSite() error {
	r := x.r
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.Header.Get("Authorization") != "" {
		return nil // nothing ambient
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

// ownMachine reports whether an Origin is a page of the user's own machine, which libraries for WebSockets that are no
// browsers also give as theirs, since they have to give one. A browser adds Sec-Fetch-Site, and then that decides.
func ownMachine(origin *url.URL) bool {
	addr, err := netip.ParseAddr(origin.Hostname())
	return origin.Scheme == "http" && (origin.Hostname() == "localhost" || err == nil && addr.IsLoopback())
}

package broker

import (
	"crypto/tls"
	"slices"

	"petrel.dev/petrel/internal/wire"
)

// ServerTLS gives base a link: a client that offers wire.ALPN must show a certificate, which nobody verifies (ServeConn
// takes the device's fingerprint from it); all others get base as it is.
func ServerTLS(base *tls.Config) *tls.Config {
	link := base.Clone()
	link.NextProtos = []string{wire.ALPN}
	link.ClientAuth = tls.RequireAnyClientCert
	link.ClientCAs = nil
	link.VerifyConnection, link.VerifyPeerCertificate = nil, nil
	link.MinVersion = tls.VersionTLS13
	link.SessionTicketsDisabled = true // a resumed session would save little and cost tickets
	outer := base.Clone()
	next := base.GetConfigForClient
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, wire.ALPN) {
			return link, nil
		}
		if next != nil {
			return next(hello)
		}
		return nil, nil
	}
	return outer
}

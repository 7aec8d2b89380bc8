package hub

import "petrel.dev/petrel/hub/control/certificates"

// certificates returns the controller of CertificateSigningRequests. It writes as the hub itself, whose CA signs.
func (h *Hub) certificates() *certificates.Controller {
	return certificates.New(certificates.Config{Client: h.registry.Client(), Signer: h.pki, Authorizer: h.policy, Log: h.part("certificates")})
}

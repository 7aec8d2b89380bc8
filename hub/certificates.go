package hub

import (
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/certificates"
)

// certificates returns the controller of CertificateSigningRequests. Its ServiceAccount has the rights to approve and sign by a role
// that every hub has.
func (h *Hub) certificates() *certificates.Controller {
	client := h.registry.ClientAs(auth.Controller("certificate-controller"))
	return certificates.New(certificates.Config{Client: client, Signer: h.pki, Authorizer: h.policy, Log: h.part("certificates")})
}

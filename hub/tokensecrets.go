package hub

import (
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/tokensecret"
)

// openTokenSecrets makes the controller of Secrets that hold a ServiceAccount's token. The authenticator reports their use to it, and
// retired keys stay while such a token needs one.
func (h *Hub) openTokenSecrets() {
	client := h.registry.ClientAs(auth.Controller("tokens-controller"))
	h.tokenSecrets = tokensecret.New(tokensecret.Config{Client: client, Issuer: h.pki.Tokens(), CA: h.pki.CA(), Log: h.part("tokensecret")})
	h.credentials.OnLegacyToken(h.tokenSecrets.Used)
	h.pki.KeepTokenKeys(func(kid string) bool { return tokensecret.SignedBy(client, kid) })
}

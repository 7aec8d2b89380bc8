package hub

import (
	"path/filepath"

	"petrel.dev/petrel/hub/auth/oidc"
	"petrel.dev/petrel/hub/auth/usertoken"
)

// openBearers adds the sorts of bearer tokens besides those of ServiceAccounts to what the hub accepts.
func (h *Hub) openBearers() error {
	users, err := usertoken.Open(filepath.Join(h.cfg.DataDir, "pki"), h.part("users"))
	if err != nil {
		return err
	}
	h.credentials.Add(users)
	h.pki.OnChange(users.Reload)
	if h.cfg.OIDC.IssuerURL == "" {
		return nil
	}
	issuer, err := oidc.New(h.cfg.OIDC, h.part("oidc"))
	if err != nil {
		return err
	}
	h.credentials.Add(issuer)
	return nil
}

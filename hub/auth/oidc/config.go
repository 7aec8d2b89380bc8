package oidc

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// Config is what an operator chooses; its fields have the meaning of upstream's --oidc flags. The zero value means that there is no
// issuer.
type Config struct {
	IssuerURL      string            // https, exactly as in the tokens' iss claim
	ClientID       string            // one of the tokens' audiences
	UsernameClaim  string            // "": sub
	UsernamePrefix string            // "": the issuer and #, but for the claim email; "-": none
	GroupsClaim    string            // "": users are in no groups
	GroupsPrefix   string            // before each group
	CAFile         string            // certificates that the issuer's is signed by; "": the system's
	RequiredClaims map[string]string // what a token must have besides
	SigningAlgs    []string          // "": RS256
}

// algorithms are upstream's: those with public keys.
var algorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}

// check fills in defaults, and refuses a wrong setting with an error that names its flag.
func (c *Config) check() error {
	u, err := url.Parse(c.IssuerURL)
	switch {
	case err != nil:
		return fmt.Errorf("--oidc-issuer-url: %w", err)
	case u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("--oidc-issuer-url %q is no https://HOST/PATH without user, query and fragment", c.IssuerURL)
	case c.ClientID == "":
		return errors.New("--oidc-client-id is missing: tokens that the issuer made for other programs must not open the API")
	}
	if c.UsernameClaim == "" {
		c.UsernameClaim = "sub"
	}
	switch {
	case c.UsernamePrefix == "-":
		c.UsernamePrefix = ""
	case c.UsernamePrefix == "" && c.UsernameClaim != "email":
		c.UsernamePrefix = c.IssuerURL + "#"
	}
	if len(c.SigningAlgs) == 0 {
		c.SigningAlgs = []string{"RS256"}
	}
	for _, a := range c.SigningAlgs {
		if !slices.Contains(algorithms, a) {
			return fmt.Errorf("--oidc-signing-algs %q is none of %s", a, strings.Join(algorithms, ", "))
		}
	}
	return nil
}

// roots returns the certificates of the CA file; nil means the system's.
func (c *Config) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("--oidc-ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--oidc-ca-file %s holds no certificate", c.CAFile)
	}
	return pool, nil
}

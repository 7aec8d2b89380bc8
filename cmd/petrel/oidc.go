//go:build linux

package main

import (
	"errors"

	"petrel.dev/petrel/hub/auth/oidc"
)

// oidcFlags have the names and meanings of upstream's.
type oidcFlags struct {
	OIDCIssuerURL      string            `name:"oidc-issuer-url" help:"OpenID Connect issuer whose ID tokens people log in with: https, exactly as in the tokens. Without it there is none." placeholder:"URL"`
	OIDCClientID       string            `name:"oidc-client-id" help:"The audience of those tokens." placeholder:"ID"`
	OIDCUsernameClaim  string            `name:"oidc-username-claim" default:"sub" help:"Claim with the user's name." placeholder:"CLAIM"`
	OIDCUsernamePrefix string            `name:"oidc-username-prefix" help:"What is put before the name; - nothing. Default: the issuer and #, nothing for the claim email." placeholder:"TEXT"`
	OIDCGroupsClaim    string            `name:"oidc-groups-claim" help:"Claim with the user's groups." placeholder:"CLAIM"`
	OIDCGroupsPrefix   string            `name:"oidc-groups-prefix" help:"What is put before each group." placeholder:"TEXT"`
	OIDCCAFile         string            `name:"oidc-ca-file" type:"path" help:"Certificates that the issuer's is signed by. Default: the system's." placeholder:"FILE"`
	OIDCRequiredClaim  map[string]string `name:"oidc-required-claim" help:"What a token must have besides: CLAIM=VALUE. May be given more than once." placeholder:"CLAIM=VALUE" mapsep:","`
	OIDCSigningAlgs    []string          `name:"oidc-signing-algs" default:"RS256" help:"Algorithms that the tokens may be signed with." placeholder:"ALG"`
}

func (f oidcFlags) oidc() (oidc.Config, error) {
	cfg := oidc.Config{
		IssuerURL: f.OIDCIssuerURL, ClientID: f.OIDCClientID, UsernameClaim: f.OIDCUsernameClaim, UsernamePrefix: f.OIDCUsernamePrefix,
		GroupsClaim: f.OIDCGroupsClaim, GroupsPrefix: f.OIDCGroupsPrefix, CAFile: f.OIDCCAFile, RequiredClaims: f.OIDCRequiredClaim,
		SigningAlgs: f.OIDCSigningAlgs,
	}
	if cfg.IssuerURL == "" && (cfg.ClientID != "" || cfg.GroupsClaim != "" || cfg.CAFile != "" || len(cfg.RequiredClaims) > 0) {
		return cfg, errors.New("--oidc-*: there is no issuer without --oidc-issuer-url")
	}
	return cfg, nil
}

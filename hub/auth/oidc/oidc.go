// Package oidc authenticates people by the ID tokens of an OpenID Connect issuer.
//
//	token with the issuer's iss ─► discovery (first use, then each hour) ─► signature, time, audience ─► claims ─► user, groups
//
// The hub starts and goes on without the issuer: it is asked when the first of its tokens comes, and tokens are refused with the reason in
// the log while it cannot be reached. Keys are fetched again when a token names one that is not there.
package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/clock"
)

const (
	// freshFor is how long the issuer's keys are used before they are fetched again, so that one that the issuer has taken back ends.
	freshFor = time.Hour
	// retryAfter is the pause after a discovery that failed.
	retryAfter = 10 * time.Second
	// askTimeout bounds one question to the issuer.
	askTimeout = 5 * time.Second
	// maxWaiting is how many requests may wait for the issuer at a time. Anybody can send a token that names it; requests of others
	// must find room meanwhile.
	maxWaiting = 32
	// maxJudged is how many tokens that were found good are remembered.
	maxJudged = 512
)

var errBusy = errors.New("too many tokens of this issuer wait for it to answer")

// reserved begins the names of the cluster's own users and groups, which no issuer gives away.
const reserved = "system:"

// Issuer judges the tokens of one issuer. It is an auth.BearerTokens, safe for concurrent use.
type Issuer struct {
	cfg    Config // with its defaults; does not change
	client *http.Client
	log    *slog.Logger  // never nil
	slots  chan struct{} // one for each request that may wait for the issuer; full: others are refused

	mu       sync.Mutex            // held during discovery: others wait for its result
	verifier *oidc.IDTokenVerifier // nil: the issuer has not answered yet; guarded by mu
	failure  error                 // of the last discovery; guarded by mu
	next     time.Time             // when the issuer is asked again; guarded by mu

	judgedMu sync.Mutex
	judged   map[[sha256.Size]byte]judgement // tokens that are good with the keys of now; guarded by judgedMu
}

// judgement is whose a good token is.
type judgement struct {
	user  auth.User
	until time.Time // the earlier of the token's end and the next look at the issuer's keys
}

var _ auth.BearerTokens = (*Issuer)(nil)

// New returns an Issuer. It does not ask the issuer anything.
func New(cfg Config, log *slog.Logger) (*Issuer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	roots, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		IdleConnTimeout: time.Minute, TLSHandshakeTimeout: askTimeout, ResponseHeaderTimeout: askTimeout, ForceAttemptHTTP2: true,
	}
	return &Issuer{cfg: cfg, log: log, client: &http.Client{Transport: &polite{next: transport}, Timeout: askTimeout, CheckRedirect: checkRedirect}, slots: make(chan struct{}, maxWaiting)}, nil
}

// discover returns what verifies the issuer's tokens. While the issuer does not answer, keys that were fetched before go on being used.
func (i *Issuer) discover() (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if now.Before(i.next) {
		return i.verifier, i.failure
	}
	// The issuer's client is in the context, which go-oidc keeps: the request's own would end.
	ctx := oidc.ClientContext(context.Background(), i.client)
	provider, err := oidc.NewProvider(ctx, i.cfg.IssuerURL)
	if err != nil {
		i.next = now.Add(retryAfter)
		i.log.Warn("the OIDC issuer cannot be asked, and will be when the next of its tokens comes", "issuer", i.cfg.IssuerURL, "error", err, "keysFromBefore", i.verifier != nil)
		if i.verifier == nil {
			i.failure = fmt.Errorf("the issuer %s cannot be asked: %w", i.cfg.IssuerURL, err)
		}
		return i.verifier, i.failure
	}
	i.verifier = provider.VerifierContext(ctx, &oidc.Config{ClientID: i.cfg.ClientID, SupportedSigningAlgs: i.cfg.SigningAlgs, Now: clock.Now})
	i.failure, i.next = nil, now.Add(freshFor)
	return i.verifier, nil
}

// Token implements auth.BearerTokens. The tokens are for the hub's API alone.
func (i *Issuer) Token(ctx context.Context, text string, audiences []string) (user auth.User, accepted []string, ours bool, err error) {
	if satoken.IssuerOf(text) != i.cfg.IssuerURL {
		return auth.User{}, nil, false, nil
	}
	if accepted = satoken.ForAPI(audiences); len(accepted) == 0 {
		return auth.User{}, nil, true, errors.New("the tokens of people are for the API alone")
	}
	sum := sha256.Sum256([]byte(text))
	if j, ok := i.remembered(sum); ok {
		return j.user, accepted, true, nil
	}
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	default:
		return auth.User{}, nil, true, errBusy
	}
	j, err := i.judge(ctx, text)
	if err != nil {
		return auth.User{}, nil, true, err
	}
	i.remember(sum, j)
	return j.user, accepted, true, nil
}

// judge verifies a token. It may wait for the issuer.
func (i *Issuer) judge(ctx context.Context, text string) (judgement, error) {
	verifier, err := i.discover()
	if err != nil {
		return judgement{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	token, err := verifier.Verify(ctx, text)
	if err != nil {
		return judgement{}, err
	}
	var claims map[string]json.RawMessage
	if err := token.Claims(&claims); err != nil {
		return judgement{}, fmt.Errorf("oidc: parse claims: %w", err)
	}
	user, err := i.cfg.user(claims)
	until := clock.Now().Add(freshFor)
	if token.Expiry.Before(until) {
		until = token.Expiry
	}
	return judgement{user, until}, err
}

func (i *Issuer) remembered(sum [sha256.Size]byte) (judgement, bool) {
	i.judgedMu.Lock()
	defer i.judgedMu.Unlock()
	j, ok := i.judged[sum]
	return j, ok && clock.Now().Before(j.until)
}

// remember notes a good token. When there are too many all of them are dropped, which costs one verification each.
func (i *Issuer) remember(sum [sha256.Size]byte, j judgement) {
	i.judgedMu.Lock()
	defer i.judgedMu.Unlock()
	if i.judged == nil || len(i.judged) >= maxJudged {
		i.judged = map[[sha256.Size]byte]judgement{}
	}
	i.judged[sum] = j
}

// Until implements auth.BearerTokens. Nobody tells the hub that an issuer has taken a token back.
func (i *Issuer) Until(string, func()) (stop func()) { return func() {} }

// user returns whose claims they are.
func (c *Config) user(claims map[string]json.RawMessage) (auth.User, error) {
	name, err := text(claims, c.UsernameClaim)
	if err != nil {
		return auth.User{}, err
	}
	if c.UsernameClaim == "email" {
		if err := verified(claims); err != nil {
			return auth.User{}, err
		}
	}
	for claim, want := range c.RequiredClaims {
		got, err := text(claims, claim)
		if err != nil {
			return auth.User{}, err
		}
		if got != want {
			return auth.User{}, fmt.Errorf("oidc: required claim %s value does not match. Got = %s, want = %s", claim, got, want)
		}
	}
	u := auth.User{Name: c.UsernamePrefix + name, Extra: map[string][]string{}}
	if name == "" || strings.HasPrefix(u.Name, reserved) {
		return auth.User{}, fmt.Errorf("oidc: %q cannot be the name of a person", u.Name)
	}
	groups, err := c.groups(claims)
	if err != nil {
		return auth.User{}, err
	}
	u.Groups = append(groups, auth.GroupAuthenticated)
	if id, err := text(claims, "jti"); err == nil && id != "" {
		u.Extra["authentication.kubernetes.io/credential-id"] = []string{"JTI=" + id}
	}
	return u, nil
}

// groups returns the groups that the claims name, but for the cluster's own.
func (c *Config) groups(claims map[string]json.RawMessage) ([]string, error) {
	raw, ok := claims[c.GroupsClaim]
	if c.GroupsClaim == "" || !ok || string(raw) == "null" {
		return nil, nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		var one string
		if json.Unmarshal(raw, &one) != nil {
			return nil, fmt.Errorf("oidc: parse groups claim %q: %w", c.GroupsClaim, err)
		}
		list = []string{one}
	}
	for k := range list {
		list[k] = c.GroupsPrefix + list[k]
	}
	return slices.DeleteFunc(list, func(g string) bool { return strings.HasPrefix(g, reserved) }), nil
}

// verified refuses an e-mail address that the issuer says it has not verified. One that it says nothing about passes, as upstream.
func verified(claims map[string]json.RawMessage) error {
	raw, ok := claims["email_verified"]
	if !ok {
		return nil
	}
	var is bool
	if err := json.Unmarshal(raw, &is); err != nil {
		return fmt.Errorf("oidc: parse 'email_verified' claim: %w", err)
	}
	if !is {
		return errors.New("oidc: email not verified")
	}
	return nil
}

func text(claims map[string]json.RawMessage, name string) (string, error) {
	raw, ok := claims[name]
	if !ok {
		return "", fmt.Errorf("oidc: claim %q is not there", name)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("oidc: parse claim %q: %w", name, err)
	}
	return s, nil
}

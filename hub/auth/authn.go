package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/auth/satoken"
)

// Extra values that a User may have; Kubernetes' own.
const (
	extraCredential = "authentication.kubernetes.io/credential-id"
	extraPodName    = "authentication.kubernetes.io/pod-name"
)

// Credentials is the Authenticator of the hub's own credentials: a client certificate of the hub's CA (common name and
// organisations are user and groups), or a ServiceAccount token.
//
// Its fields do not change after NewAuthenticator; the memos have locks of their own.
type Credentials struct {
	pki     *PKI
	objects satoken.Objects
	roots   *x509.CertPool // the hub's own CA alone

	// To verify a signature costs a board half a millisecond, and clients show the same one with each request. All requests
	// of a connection have the same *x509.Certificate.
	certs  memo[*x509.Certificate, User]
	tokens memo[[sha256.Size]byte, *satoken.Claims]

	// bearers judge the tokens that are not ServiceAccounts', in this order. Set by Add before the first request.
	bearers []BearerTokens
	// legacyUsed, when not nil, is called with each legacy token's Secret. Set by OnLegacyToken before the first request.
	legacyUsed func(*corev1.Secret)

	open openTokens // has a lock of its own
}

// BearerTokens judges one sort of bearer tokens.
type BearerTokens interface {
	// Token returns whose token it is, and for which of audiences it is good; none are the API's own. ours is false when the token is
	// of another sort; err says why one of this sort is refused.
	Token(ctx context.Context, token string, audiences []string) (user User, accepted []string, ours bool, err error)
	// Until makes end be called, once and in a goroutine of its own, when the token stops being accepted before stop is called.
	Until(token string, end func()) (stop func())
}

// Add makes a accept another sort of tokens.
func (a *Credentials) Add(b BearerTokens) { a.bearers = append(a.bearers, b) }

// OnLegacyToken makes used be called with the Secret of each legacy token that a request came with. It must return quickly.
func (a *Credentials) OnLegacyToken(used func(*corev1.Secret)) { a.legacyUsed = used }

// NewAuthenticator returns an Authenticator that verifies by pki's keys, and checks in objects that what a token is bound to exists.
func NewAuthenticator(pki *PKI, objects satoken.Objects) *Credentials {
	roots := x509.NewCertPool()
	roots.AddCert(pki.ca)
	return &Credentials{pki: pki, objects: objects, roots: roots}
}

// Authenticate returns the request's user, which is shared: read-only. ok is false when it carries no credentials, or a client certificate of
// another CA; err says why credentials were refused.
func (a *Credentials) Authenticate(r *http.Request) (user User, ok bool, err error) {
	if token, found := bearer(r); found {
		u, _, err := a.Token(r.Context(), token, nil)
		return u, err == nil, err
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return a.certificate(r.TLS.PeerCertificates)
	}
	return User{}, false, nil
}

// Until implements Authenticator: it ends requests of a client certificate, or of a user's token, when that is revoked, and those of a
// ServiceAccount's token when that expires or what it is bound to goes.
func (a *Credentials) Until(r *http.Request, end func()) (stop func()) {
	if token, found := bearer(r); found {
		stops := []func(){a.untilTokenEnds(r.Context(), token, end)}
		for _, b := range a.bearers {
			stops = append(stops, b.Until(token, end))
		}
		return func() {
			for _, s := range stops {
				s()
			}
		}
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return func() {}
	}
	return a.pki.revoked.until(r.TLS.PeerCertificates[0], end)
}

func bearer(r *http.Request) (string, bool) {
	if kind, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " "); ok && strings.EqualFold(kind, "bearer") {
		if token = strings.TrimSpace(token); token != "" {
			return token, true
		}
	}
	// A browser's WebSocket cannot send headers; it offers the token as a subprotocol.
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			if enc, ok := strings.CutPrefix(strings.TrimSpace(p), bearerProtocol); ok {
				if token, err := base64.RawURLEncoding.DecodeString(enc); err == nil {
					return string(token), true
				}
			}
		}
	}
	return "", false
}

// Token verifies a bearer token for any of the audiences (none: the API's own) and returns those that it is for. When what
// a ServiceAccount's token is bound to does not exist, Token looks again once the cache has caught up: it may have been created a
// moment ago.
func (a *Credentials) Token(ctx context.Context, token string, audiences []string) (user User, accepted []string, err error) {
	for _, b := range a.bearers {
		if user, accepted, ours, err := b.Token(ctx, token, audiences); ours {
			return user, accepted, err
		}
	}
	sum := sha256.Sum256([]byte(token))
	c, ok := a.tokens.get(sum)
	if !ok || !a.pki.tokens.Knows(satoken.KeyIDOf(token)) {
		if c, err = a.pki.tokens.Verify(token); err != nil {
			return User{}, nil, err
		}
		a.tokens.put(sum, c)
	}
	id, accepted, err := a.pki.tokens.Identify(c, token, audiences, a.objects)
	if satoken.MayBeLate(err) && a.objects.CatchUp(ctx) == nil {
		id, accepted, err = a.pki.tokens.Identify(c, token, audiences, a.objects)
	}
	if id.Secret != nil && a.legacyUsed != nil {
		a.legacyUsed(id.Secret)
	}
	if err != nil {
		return User{}, nil, err
	}
	return User{
		Name:   satoken.Username(id.Namespace, id.Name),
		UID:    id.UID,
		Groups: []string{groupServiceAccounts, groupServiceAccounts + ":" + id.Namespace, GroupAuthenticated},
		Extra:  id.Extra,
	}, accepted, nil
}

func (a *Credentials) certificate(chain []*x509.Certificate) (User, bool, error) {
	cert := chain[0]
	now := sane(a.pki.now())
	user, ok := a.certs.get(cert)
	if !ok {
		if err := a.verify(chain, now); err != nil {
			var unknown x509.UnknownAuthorityError
			if errors.As(err, &unknown) {
				return User{}, false, nil
			}
			return User{}, false, fmt.Errorf("client certificate %q: %w", cert.Subject.CommonName, err)
		}
		sum := sha256.Sum256(cert.Raw)
		user = User{
			Name:   cert.Subject.CommonName,
			Groups: append(slices.Clone(cert.Subject.Organization), GroupAuthenticated),
			Extra:  map[string][]string{extraCredential: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
		}
		a.certs.put(cert, user)
	}
	if why, refused := a.pki.revoked.of(cert); refused {
		return User{}, false, fmt.Errorf("client certificate %q was revoked at %s", cert.Subject.CommonName, why.at.Format(time.RFC3339))
	}
	if now.After(cert.NotAfter) {
		return User{}, false, fmt.Errorf("client certificate %q expired at %s", cert.Subject.CommonName, cert.NotAfter.Format(time.RFC3339))
	}
	return user, true, nil
}

func (a *Credentials) verify(chain []*x509.Certificate, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// memo holds results of verifications. When it is full it drops all of them: that costs one verification each, and needs neither
// clock nor list.
type memo[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V // guarded by mu
}

const memoSize = 512

func (m *memo[K, V]) get(k K) (V, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.m[k]
	return v, ok
}

func (m *memo[K, V]) put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil || len(m.m) >= memoSize {
		m.m = make(map[K]V)
	}
	m.m[k] = v
}

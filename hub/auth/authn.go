package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
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
	objects Objects
	roots   *x509.CertPool // the hub's own CA alone

	// To verify a signature costs a board half a millisecond, and clients show the same one with each request. All requests
	// of a connection have the same *x509.Certificate.
	certs  memo[*x509.Certificate, User]
	tokens memo[[sha256.Size]byte, *claims]

	open openTokens // has a lock of its own
}

// NewAuthenticator returns an Authenticator that verifies by pki's keys, and checks in objects that what a token is bound to exists.
func NewAuthenticator(pki *PKI, objects Objects) *Credentials {
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

// Until implements Authenticator: it ends requests of a client certificate when that is revoked, and those of a ServiceAccount's token
// when that expires or what it is bound to goes.
func (a *Credentials) Until(r *http.Request, end func()) (stop func()) {
	if token, found := bearer(r); found {
		return a.untilTokenEnds(r.Context(), token, end)
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
	const prefix = "base64url.bearer.authorization.k8s.io."
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			if enc, ok := strings.CutPrefix(strings.TrimSpace(p), prefix); ok {
				if token, err := decodeBearer(enc); err == nil {
					return token, true
				}
			}
		}
	}
	return "", false
}

// apiAudiences are those of tokens for this API.
var apiAudiences = []string{Issuer, Issuer + ".cluster.local"}

// Token verifies a ServiceAccount token for any of the audiences (none: the API's own) and returns those that it is for. When what
// it is bound to does not exist, Token looks again once the cache has caught up: it may have been created a moment ago.
func (a *Credentials) Token(ctx context.Context, token string, audiences []string) (user User, accepted []string, err error) {
	if len(audiences) == 0 {
		audiences = apiAudiences
	}
	sum := sha256.Sum256([]byte(token))
	c, ok := a.tokens.get(sum)
	if !ok {
		var err error
		if c, err = verifyJWT(&a.pki.saKey.PublicKey, token); err != nil {
			return User{}, nil, err
		}
		a.tokens.put(sum, c)
	}
	user, err = c.check(a.pki.now(), audiences, a.objects)
	if errors.Is(err, errGone) && a.objects.CatchUp(ctx) == nil {
		user, err = c.check(a.pki.now(), audiences, a.objects)
	}
	if err != nil {
		return User{}, nil, err
	}
	for _, aud := range c.Audience {
		if slices.Contains(audiences, aud) {
			accepted = append(accepted, aud)
		}
	}
	return user, accepted, nil
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

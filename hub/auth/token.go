package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// Issuer is the iss claim of every token, and the audience of those that ask for none.
const Issuer = "https://kubernetes.default.svc"

// These bound a token's lifetime. The shortest is Kubernetes' own, the longest what its API servers are usually set to.
const (
	MinTokenLifetime = 10 * time.Minute
	MaxTokenLifetime = 365 * 24 * time.Hour
)

// deletedLeeway is how long a token stays good after what it is bound to should have ended: time for a last request of a
// program that is shutting down, and for a small difference of clocks. Kubernetes' own.
const deletedLeeway = time.Minute

// Objects reads which objects exist; *objects.Cache is one.
type Objects interface {
	Get(gvk kube.GVK, namespace, name string) (kube.Object, bool)
	// CatchUp returns nil once Get shows all that was committed before the call.
	CatchUp(ctx context.Context) error
}

// errGone is wrapped where what a token is bound to does not exist.
var errGone = errors.New("has been deleted")

// IssueToken signs a token for sa, bound to pod when that is not nil: it dies with the pod. No audience means the API's
// own. A lifetime outside the bounds becomes the nearer bound. expires is the end by the hub's clock.
func (p *PKI) IssueToken(ctx context.Context, sa *corev1.ServiceAccount, pod *corev1.Pod, auds []string, lifetime time.Duration) (token string, expires time.Time, err error) {
	if sa.UID == "" {
		return "", time.Time{}, fmt.Errorf("token for service account %s/%s: it has no UID, so it was never stored", sa.Namespace, sa.Name)
	}
	if len(auds) == 0 {
		auds = []string{Issuer}
	}
	now := sane(p.now()).Truncate(time.Second)
	expires = now.Add(min(max(lifetime, MinTokenLifetime), MaxTokenLifetime))
	c := claims{
		Audience:  auds,
		Expires:   expires.Unix(),
		IssuedAt:  now.Unix(),
		NotBefore: now.Unix(),
		Issuer:    Issuer,
		ID:        uuid.NewString(),
		Subject:   AccountName(sa.Namespace, sa.Name),
		Kubernetes: kubeClaims{
			Namespace:      sa.Namespace,
			ServiceAccount: objectRef{Name: sa.Name, UID: string(sa.UID)},
		},
	}
	if pod != nil {
		c.Kubernetes.Pod = &objectRef{Name: pod.Name, UID: string(pod.UID)}
		if pod.Spec.NodeName != "" {
			c.Kubernetes.Node = &objectRef{Name: pod.Spec.NodeName}
		}
	}
	if token, err = signJWT(p.saKey, c); err != nil {
		return "", time.Time{}, fmt.Errorf("token for service account %s/%s: %w", sa.Namespace, sa.Name, err)
	}
	return token, expires, nil
}

// check checks verified claims: time, issuer, audience, and that what they are bound to exists. It does not check nbf and iat: the
// hub signed them, so a time in the future only means that its clock went back.
func (c *claims) check(now time.Time, auds []string, objects Objects) (User, error) {
	k := c.Kubernetes
	switch {
	case c.Issuer != Issuer:
		return User{}, fmt.Errorf("the token's issuer is %q, not %q", c.Issuer, Issuer)
	case c.Subject != AccountName(k.Namespace, k.ServiceAccount.Name):
		return User{}, errors.New("the token's subject does not match its claims")
	case sane(now).Unix() >= c.Expires:
		return User{}, fmt.Errorf("the token expired at %s", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(auds, a) }):
		return User{}, fmt.Errorf("the token is for audiences %q", []string(c.Audience))
	}
	sa, ok := objects.Get(kube.ServiceAccount, k.Namespace, k.ServiceAccount.Name)
	if !ok || string(sa.GetUID()) != k.ServiceAccount.UID || ended(sa, now) {
		return User{}, fmt.Errorf("service account %s/%s %w", k.Namespace, k.ServiceAccount.Name, errGone)
	}
	u := User{
		Name:   c.Subject,
		UID:    k.ServiceAccount.UID,
		Groups: append(AccountGroups(k.Namespace), GroupAuthenticated),
		Extra:  map[string][]string{extraCredential: {"JTI=" + c.ID}},
	}
	if k.Pod != nil {
		pod, ok := objects.Get(kube.Pod, k.Namespace, k.Pod.Name)
		if !ok || string(pod.GetUID()) != k.Pod.UID || ended(pod, now) {
			return User{}, fmt.Errorf("pod %s/%s, to which the token is bound, %w", k.Namespace, k.Pod.Name, errGone)
		}
		u.Extra[extraPodName] = []string{k.Pod.Name}
		u.Extra["authentication.kubernetes.io/pod-uid"] = []string{k.Pod.UID}
	}
	if k.Node != nil {
		u.Extra["authentication.kubernetes.io/node-name"] = []string{k.Node.Name}
	}
	return u, nil
}

// ended reports whether o is being deleted and should have been gone for longer than the leeway: a pod on a node that is
// dark, or an object with a finalizer, may stay so for any time.
func ended(o kube.Object, now time.Time) bool {
	at := o.GetDeletionTimestamp()
	return at != nil && sane(now).After(at.Add(deletedLeeway))
}

// JWKS returns the public half of the token key as a JSON Web Key Set (RFC 7517), for programs that verify tokens themselves.
func (p *PKI) JWKS() []byte {
	raw, err := p.saKey.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		panic("auth: a P-256 key has an encoding: " + err.Error())
	}
	enc := base64.RawURLEncoding.EncodeToString
	out, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"use": "sig", "kty": "EC", "kid": keyID(&p.saKey.PublicKey), "crv": "P-256", "alg": "ES256", "x": enc(raw[1:33]), "y": enc(raw[33:65]),
	}}})
	if err != nil {
		panic("auth: strings have a JSON form: " + err.Error())
	}
	return out
}

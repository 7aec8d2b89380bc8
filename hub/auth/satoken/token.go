package satoken

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/kube"
)

const (
	// Issuer is the iss claim of every token, and the audience of those that ask for none.
	Issuer = "https://kubernetes.default.svc"
	// LegacyIssuer is the iss claim of legacy tokens; Kubernetes' own.
	LegacyIssuer = "kubernetes/serviceaccount"
)

// These bound a token's lifetime. The shortest is Kubernetes' own, the longest what its API servers are usually set to.
const (
	MinLifetime = 10 * time.Minute
	MaxLifetime = 365 * 24 * time.Hour
)

// Leeway is how long a token stays good after what it is bound to should have ended: time for a last request of a
// program that is shutting down, and for a small difference of clocks. Kubernetes' own.
const Leeway = time.Minute

// apiAudiences are those of tokens for the hub's own API.
var apiAudiences = []string{Issuer, Issuer + ".cluster.local"}

// ForAPI returns which of audiences are the API's own; all of those when there are none. It is for tokens that name no audience.
func ForAPI(audiences []string) []string {
	if len(audiences) == 0 {
		return apiAudiences
	}
	return slices.DeleteFunc(slices.Clone(audiences), func(a string) bool { return !slices.Contains(apiAudiences, a) })
}

// Objects reads which objects exist; *objects.Cache is one.
type Objects interface {
	Get(gvk kube.GVK, namespace, name string) (kube.Object, bool)
	// CatchUp returns nil once Get shows all that was committed before the call.
	CatchUp(ctx context.Context) error
}

var (
	errGone  = errors.New("has been deleted") // what a token is bound to
	errOther = errors.New("holds another token")
)

// Bound is what a token ends with besides its account: one of Pod, Secret and Node, or nothing. A Node beside a Pod is only named in
// the token.
type Bound struct {
	Pod    *corev1.Pod
	Secret *corev1.Secret
	Node   *corev1.Node
}

// IssueToken signs a token for sa. No audience means the API's own. A lifetime outside the bounds becomes the nearer bound. expires is
// the end by the hub's clock.
func (k *Keys) IssueToken(_ context.Context, sa *corev1.ServiceAccount, to Bound, auds []string, lifetime time.Duration) (token string, expires time.Time, err error) {
	if sa.UID == "" {
		return "", time.Time{}, fmt.Errorf("token for service account %s/%s: it has no UID, so it was never stored", sa.Namespace, sa.Name)
	}
	if len(auds) == 0 {
		auds = []string{Issuer}
	}
	now := clock.Sane(k.now()).Truncate(time.Second)
	expires = now.Add(min(max(lifetime, MinLifetime), MaxLifetime))
	c := Claims{
		Audience:  auds,
		Expires:   expires.Unix(),
		IssuedAt:  now.Unix(),
		NotBefore: now.Unix(),
		Issuer:    Issuer,
		ID:        uuid.NewString(),
		Subject:   Username(sa.Namespace, sa.Name),
		Kubernetes: &kubeClaims{
			Namespace:      sa.Namespace,
			ServiceAccount: objectRef{Name: sa.Name, UID: string(sa.UID)},
		},
	}
	c.Kubernetes.bind(to)
	if token, err = sign(k.set.Load().signer, c); err != nil {
		return "", time.Time{}, fmt.Errorf("token for service account %s/%s: %w", sa.Namespace, sa.Name, err)
	}
	return token, expires, nil
}

func (c *kubeClaims) bind(to Bound) {
	if to.Pod != nil {
		c.Pod = &objectRef{Name: to.Pod.Name, UID: string(to.Pod.UID)}
		if node := to.Pod.Spec.NodeName; node != "" {
			c.Node = &objectRef{Name: node}
		}
	}
	if to.Secret != nil {
		c.Secret = &objectRef{Name: to.Secret.Name, UID: string(to.Secret.UID)}
	}
	if to.Node != nil {
		c.Node = &objectRef{Name: to.Node.Name, UID: string(to.Node.UID)}
	}
}

// IssueLegacy signs the token of a Secret of type kubernetes.io/service-account-token. It does not expire.
func (k *Keys) IssueLegacy(sa *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	return sign(k.set.Load().signer, Claims{
		Issuer: LegacyIssuer, Subject: Username(sa.Namespace, sa.Name),
		LegacyNamespace: sa.Namespace, LegacySecret: secret.Name, LegacyName: sa.Name, LegacyUID: string(sa.UID),
	})
}

// Username returns the user name of a ServiceAccount.
func Username(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// Identity is whose a token is.
type Identity struct {
	Namespace, Name, UID string
	Extra                map[string][]string // what it is bound to, under Kubernetes' keys
	Secret               *corev1.Secret      // of a legacy token, as it is stored, also of one that is refused because it is marked; nil for others
}

// Identify checks verified claims of token: time, issuer, audience (none: the API's own), and that what they are bound to exists. It
// does not check nbf and iat: the hub signed them, so a time in the future only means that its clock went back. accepted are the
// audiences that the token is for.
func (k *Keys) Identify(c *Claims, token string, auds []string, objects Objects) (id Identity, accepted []string, err error) {
	if len(auds) == 0 {
		auds = apiAudiences
	}
	has := []string(c.Audience)
	now := clock.Sane(k.now())
	switch {
	case c.Issuer == LegacyIssuer:
		has = apiAudiences // a legacy token names none
		id, err = c.legacy(token, objects)
	case c.Issuer != Issuer:
		return Identity{}, nil, fmt.Errorf("the token's issuer is %q, not %q", c.Issuer, Issuer)
	case c.Kubernetes == nil || c.Subject != Username(c.Kubernetes.Namespace, c.Kubernetes.ServiceAccount.Name):
		return Identity{}, nil, errors.New("the token's subject does not match its claims")
	case now.Unix() >= c.Expires:
		return Identity{}, nil, fmt.Errorf("the token expired at %s", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	default:
		id, err = c.bound(now, objects)
	}
	if err != nil {
		return Identity{Secret: id.Secret}, nil, err
	}
	for _, a := range has {
		if slices.Contains(auds, a) {
			accepted = append(accepted, a)
		}
	}
	if len(accepted) == 0 {
		return Identity{}, nil, fmt.Errorf("the token is for audiences %q", has)
	}
	return id, accepted, nil
}

// bound checks what a token is bound to.
func (c *Claims) bound(now time.Time, objects Objects) (Identity, error) {
	k := c.Kubernetes
	there := func(gvk kube.GVK, namespace string, ref *objectRef) bool {
		obj, ok := objects.Get(gvk, namespace, ref.Name)
		return ok && string(obj.GetUID()) == ref.UID && !ended(obj, now)
	}
	if !there(kube.ServiceAccount, k.Namespace, &k.ServiceAccount) {
		return Identity{}, fmt.Errorf("service account %s/%s %w", k.Namespace, k.ServiceAccount.Name, errGone)
	}
	id := Identity{Namespace: k.Namespace, Name: k.ServiceAccount.Name, UID: k.ServiceAccount.UID, Extra: map[string][]string{}}
	if c.ID != "" {
		id.Extra["authentication.kubernetes.io/credential-id"] = []string{"JTI=" + c.ID}
	}
	if k.Secret != nil && !there(kube.Secret, k.Namespace, k.Secret) {
		return Identity{}, fmt.Errorf("secret %s/%s, to which the token is bound, %w", k.Namespace, k.Secret.Name, errGone)
	}
	if k.Pod != nil {
		if !there(kube.Pod, k.Namespace, k.Pod) {
			return Identity{}, fmt.Errorf("pod %s/%s, to which the token is bound, %w", k.Namespace, k.Pod.Name, errGone)
		}
		id.Extra["authentication.kubernetes.io/pod-name"] = []string{k.Pod.Name}
		id.Extra["authentication.kubernetes.io/pod-uid"] = []string{k.Pod.UID}
	}
	if k.Node != nil {
		if k.Pod == nil && !there(kube.Node, "", k.Node) {
			return Identity{}, fmt.Errorf("node %s, to which the token is bound, %w", k.Node.Name, errGone)
		}
		id.Extra["authentication.kubernetes.io/node-name"] = []string{k.Node.Name}
		if k.Node.UID != "" {
			id.Extra["authentication.kubernetes.io/node-uid"] = []string{k.Node.UID}
		}
	}
	return id, nil
}

// InvalidSinceLabel on a Secret with a legacy token makes the token refused; Kubernetes' own.
const InvalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"

// legacy checks a legacy token. It is good while its Secret holds exactly this token, and its account exists.
func (c *Claims) legacy(token string, objects Objects) (Identity, error) {
	ns, name := c.LegacyNamespace, c.LegacyName
	if ns == "" || name == "" || c.LegacySecret == "" || c.LegacyUID == "" || c.Subject != Username(ns, name) {
		return Identity{}, errors.New("the token's subject does not match its claims")
	}
	obj, ok := objects.Get(kube.Secret, ns, c.LegacySecret)
	secret, isSecret := obj.(*corev1.Secret)
	if !ok || !isSecret || secret.DeletionTimestamp != nil {
		return Identity{}, fmt.Errorf("secret %s/%s, which holds the token, %w", ns, c.LegacySecret, errGone)
	}
	if subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) == 0 {
		return Identity{}, fmt.Errorf("secret %s/%s %w", ns, c.LegacySecret, errOther)
	}
	sa, ok := objects.Get(kube.ServiceAccount, ns, name)
	if !ok || string(sa.GetUID()) != c.LegacyUID || sa.GetDeletionTimestamp() != nil {
		return Identity{}, fmt.Errorf("service account %s/%s %w", ns, name, errGone)
	}
	if secret.Labels[InvalidSinceLabel] != "" {
		return Identity{Secret: secret}, fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
			ns, c.LegacySecret, ns, name, InvalidSinceLabel)
	}
	return Identity{Namespace: ns, Name: name, UID: c.LegacyUID, Secret: secret}, nil
}

// ended reports whether o is being deleted and should have been gone for longer than the leeway: a pod on a node that is
// dark, or an object with a finalizer, may stay so for any time.
func ended(o kube.Object, now time.Time) bool {
	at := o.GetDeletionTimestamp()
	return at != nil && now.After(at.Add(Leeway))
}

// MayBeLate reports whether a refusal may only mean that the cache has not caught up yet.
func MayBeLate(err error) bool { return errors.Is(err, errGone) || errors.Is(err, errOther) }

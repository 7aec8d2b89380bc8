// Package tokensecret fills Secrets of type kubernetes.io/service-account-token: with the token of the ServiceAccount that they name, the
// hub's CA and the namespace. Such a Secret goes with its account. The token does not expire; programs should ask for one
// that does (TokenRequest), and these are for those that cannot.
//
//	Secret (type, annotation service-account.name) ──► account exists? ── yes ─► token, ca.crt, namespace, account's UID
//	                                                        └─ no ─► Secret deleted
package tokensecret

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/kube"
)

// lastUsedLabel on a Secret is the day on which its token was used last; Kubernetes' own.
const lastUsedLabel = "kubernetes.io/legacy-token-last-used"

// Issuer signs the tokens; *satoken.Keys is one.
type Issuer interface {
	IssueLegacy(sa *corev1.ServiceAccount, secret *corev1.Secret) (string, error)
}

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Issuer Issuer
	CA     []byte // the hub's CA certificates, PEM
	Log    *slog.Logger
}

// Controller reconciles Secrets. Its fields do not change after New.
type Controller struct {
	client control.Client
	issuer Issuer
	ca     []byte
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, issuer: cfg.Issuer, ca: cfg.CA}
	c.loop = &control.Loop{
		Name: "tokensecret", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources:   []control.Source{{GVK: kube.Secret, Keys: secretKeys}, {GVK: kube.ServiceAccount, Keys: c.accountKeys}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Used asks for the day of the last use to be noted on a Secret whose token a request came with. It returns at once.
func (c *Controller) Used(secret *corev1.Secret) {
	if secret.Labels[lastUsedLabel] != today() {
		c.loop.Enqueue(control.Key{GVK: usedKey, Namespace: secret.Namespace, Name: secret.Name})
	}
}

func today() string { return clock.Now().UTC().Format(time.DateOnly) }

// The kinds of keys that are not a Secret to be filled: one whose token was used, and an account's reference (ACCOUNT/SECRET) to a
// Secret that is gone.
var (
	usedKey      = kube.GVK{Kind: "used Secret"}
	referenceKey = kube.GVK{Kind: "reference"}
)

// accountOf returns the account that a token's Secret names; ok is false for any other Secret.
func accountOf(obj kube.Object) (name string, ok bool) {
	s, isSecret := obj.(*corev1.Secret)
	if !isSecret || s.Type != corev1.SecretTypeServiceAccountToken {
		return "", false
	}
	return s.Annotations[corev1.ServiceAccountNameKey], true
}

func secretKeys(ch control.Change) []control.Key {
	account, ok := accountOf(ch.Object())
	switch {
	case !ok:
		return nil
	case ch.New == nil:
		return []control.Key{{GVK: referenceKey, Namespace: ch.Old.GetNamespace(), Name: account + "/" + ch.Old.GetName()}}
	}
	return []control.Key{control.KeyOf(ch.New)}
}

// accountKeys returns the Secrets of an account that has come, or gone.
func (c *Controller) accountKeys(ch control.Change) []control.Key {
	if ch.Old != nil && ch.New != nil {
		return nil
	}
	var keys []control.Key
	for _, s := range c.client.List(kube.Secret, ch.Object().GetNamespace()) {
		if account, ok := accountOf(s); ok && account == ch.Object().GetName() {
			keys = append(keys, control.KeyOf(s))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	switch key.GVK {
	case referenceKey:
		account, secret, _ := strings.Cut(key.Name, "/")
		return 0, c.removeReference(ctx, key.Namespace, account, secret)
	case usedKey:
		return 0, c.noteUse(ctx, key)
	}
	s, ok := control.Get[*corev1.Secret](c.client, kube.Secret, key.Namespace, key.Name)
	if !ok || s.DeletionTimestamp != nil {
		return 0, nil
	}
	account, ok := accountOf(s)
	if !ok {
		return 0, nil
	}
	sa, ok := control.Get[*corev1.ServiceAccount](c.client, kube.ServiceAccount, s.Namespace, account)
	if uid := s.Annotations[corev1.ServiceAccountUIDKey]; !ok || uid != "" && uid != string(sa.UID) {
		err := c.client.Delete(ctx, kube.Secret, s.Namespace, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		if apierrors.IsConflict(err) { // another Secret has the name by now
			return 0, nil
		}
		return 0, control.IgnoreNotFound(err)
	}
	return 0, c.fill(ctx, s, sa)
}

// fill sets what is missing. A token that is there stays.
func (c *Controller) fill(ctx context.Context, s *corev1.Secret, sa *corev1.ServiceAccount) error {
	if len(s.Data[corev1.ServiceAccountTokenKey]) > 0 && len(s.Data[corev1.ServiceAccountNamespaceKey]) > 0 && bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], c.ca) {
		return nil
	}
	up := s.DeepCopy()
	if up.Data == nil {
		up.Data = map[string][]byte{}
	}
	up.Data[corev1.ServiceAccountRootCAKey] = c.ca
	if len(up.Data[corev1.ServiceAccountNamespaceKey]) == 0 {
		up.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
	}
	if len(up.Data[corev1.ServiceAccountTokenKey]) == 0 {
		token, err := c.issuer.IssueLegacy(sa, s)
		if err != nil {
			return fmt.Errorf("token of service account %s/%s: %w", sa.Namespace, sa.Name, err)
		}
		up.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	metav1.SetMetaDataAnnotation(&up.ObjectMeta, corev1.ServiceAccountNameKey, sa.Name)
	metav1.SetMetaDataAnnotation(&up.ObjectMeta, corev1.ServiceAccountUIDKey, string(sa.UID))
	_, err := c.client.Update(ctx, up, "")
	return control.IgnoreNotFound(err)
}

// removeReference takes a Secret that is gone out of its account's list.
func (c *Controller) removeReference(ctx context.Context, namespace, account, secret string) error {
	if _, again := c.client.Get(kube.Secret, namespace, secret); again {
		return nil
	}
	sa, ok := control.Get[*corev1.ServiceAccount](c.client, kube.ServiceAccount, namespace, account)
	if !ok || !slices.ContainsFunc(sa.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret }) {
		return nil
	}
	up := sa.DeepCopy()
	up.Secrets = slices.DeleteFunc(up.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret })
	_, err := c.client.Update(ctx, up, "")
	return control.IgnoreNotFound(err)
}

// noteUse sets the day of the last use, at most once a day.
func (c *Controller) noteUse(ctx context.Context, key control.Key) error {
	s, ok := control.Get[*corev1.Secret](c.client, kube.Secret, key.Namespace, key.Name)
	if !ok || s.DeletionTimestamp != nil || s.Labels[lastUsedLabel] == today() {
		return nil
	}
	up := s.DeepCopy()
	metav1.SetMetaDataLabel(&up.ObjectMeta, lastUsedLabel, today())
	_, err := c.client.Update(ctx, up, "")
	return control.IgnoreNotFound(err)
}

// SignedBy reports whether a token in a Secret was signed with a key: its public half must stay, since these tokens do not expire.
func SignedBy(objects control.Reader, kid string) bool {
	return slices.ContainsFunc(objects.List(kube.Secret, ""), func(obj kube.Object) bool {
		_, ok := accountOf(obj)
		return ok && satoken.KeyIDOf(string(obj.(*corev1.Secret).Data[corev1.ServiceAccountTokenKey])) == kid
	})
}

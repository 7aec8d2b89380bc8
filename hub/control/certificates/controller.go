// Package certificates approves, signs and cleans up CertificateSigningRequests, as the controllers of that name do in Kubernetes.
//
//	pending ──► a node's client certificate, and who asks may have it? ──► Approved
//	Approved ─► one of the hub's signers? the request fits its rules? ──► certificate, else Failed
//	issued, denied, failed: 1 h; pending, approved and not signed: 24 h ──► deleted
//
// Requests of any other sort are approved by people (kubectl certificate approve), and those of other signers signed by those.
package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/csr"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/kube"
)

const (
	handledKept = time.Hour      // how long an issued, denied or failed request is kept
	pendingKept = 24 * time.Hour // how long one that waits for a person or another signer is
	// askAgain is when a node's request is looked at again that who asks was not allowed to make: rights change without a sign.
	askAgain = 5 * time.Minute

	defaultLifetime = 365 * 24 * time.Hour
	leastLifetime   = 10 * time.Minute
)

// Signer signs by the hub's CA; *auth.PKI is one.
type Signer interface {
	SignRequest(req *x509.CertificateRequest, usages []certificatesv1.KeyUsage, lifetime time.Duration) ([]byte, error)
}

// Config is what the controller needs.
type Config struct {
	Client     control.Client
	Signer     Signer
	Authorizer auth.Authorizer // decides whether who asks gets a node's certificate without a person's approval
	Log        *slog.Logger
}

// Controller reconciles CertificateSigningRequests. Its fields do not change after New.
type Controller struct {
	client     control.Client
	signer     Signer
	authorizer auth.Authorizer
	loop       *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, signer: cfg.Signer, authorizer: cfg.Authorizer}
	c.loop = &control.Loop{
		Name: "certificates", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources:   []control.Source{{GVK: kube.CertificateSigningRequest}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	r, ok := control.Get[*certificatesv1.CertificateSigningRequest](c.client, kube.CertificateSigningRequest, "", key.Name)
	if !ok || r.DeletionTimestamp != nil {
		return 0, nil
	}
	now := clock.Now()
	end, ends := deadline(r)
	if ends && !now.Before(end) {
		opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion}}
		return 0, control.IgnoreNotFound(c.client.Delete(ctx, kube.CertificateSigningRequest, "", r.Name, opts))
	}
	var again time.Duration
	if ends {
		again = end.Sub(now)
	}
	approved, denied := kube.IsConditionTrue(r.Status.Conditions, certificatesv1.CertificateApproved), kube.IsConditionTrue(r.Status.Conditions, certificatesv1.CertificateDenied)
	switch {
	case len(r.Status.Certificate) > 0 || denied || kube.IsConditionTrue(r.Status.Conditions, certificatesv1.CertificateFailed):
		return again, nil
	case approved:
		return again, c.sign(ctx, r)
	}
	waits, err := c.approve(ctx, r)
	if waits && (!ends || again > askAgain) {
		again = askAgain
	}
	return again, err
}

// approve approves a node's client certificate when who asks has the right to get one. waits is true when it is one, and who asks
// has not.
func (c *Controller) approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest) (waits bool, err error) {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return false, nil
	}
	req, err := csr.Parse(r.Spec.Request)
	if err != nil {
		return false, fmt.Errorf("parse request %q: %w", r.Name, err)
	}
	if csr.CheckKubeletClient(req, r.Spec.Usages) != nil {
		return false, nil
	}
	ways := []struct{ subresource, message string }{
		{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."},
		{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."},
	}
	if r.Spec.Username != req.Subject.CommonName {
		ways = ways[1:]
	}
	for _, way := range ways {
		allowed, _, err := c.authorizer.Authorize(ctx, requester(r), auth.Attributes{
			Verb: "create", Resource: true, APIGroup: certificatesv1.GroupName, APIVersion: "*",
			Plural: "certificatesigningrequests", Subresource: way.subresource,
		})
		if err != nil {
			return true, fmt.Errorf("approve request %q: %w", r.Name, err)
		}
		if !allowed {
			continue
		}
		return false, c.condition(ctx, r, "approval", certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Reason: "AutoApproved", Message: way.message,
		})
	}
	return true, nil
}

// requester is the user who made r, as it was then.
func requester(r *certificatesv1.CertificateSigningRequest) auth.User {
	u := auth.User{Name: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: map[string][]string{}}
	for k, v := range r.Spec.Extra {
		u.Extra[k] = v
	}
	return u
}

// sign signs a request that is approved, or notes why its signer does not.
func (c *Controller) sign(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	req, err := csr.Parse(r.Spec.Request)
	if err != nil {
		return fmt.Errorf("parse request %q: %w", r.Name, err)
	}
	known, err := csr.Check(r.Spec.SignerName, req, r.Spec.Usages)
	if !known {
		return nil
	}
	if err != nil {
		return c.condition(ctx, r, "status", certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Reason: "SignerValidationFailure", Message: err.Error(),
		})
	}
	cert, err := c.signer.SignRequest(req, r.Spec.Usages, lifetime(r.Spec.ExpirationSeconds))
	if err != nil {
		return fmt.Errorf("sign request %q: %w", r.Name, err)
	}
	up := r.DeepCopy()
	up.Status.Certificate = cert
	_, err = c.client.Update(ctx, up, "status")
	return control.IgnoreNotFound(err)
}

// condition adds a true condition to r by a subresource.
func (c *Controller) condition(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string, cond certificatesv1.CertificateSigningRequestCondition) error {
	up := r.DeepCopy()
	now := metav1.NewTime(clock.Now().Truncate(time.Second))
	cond.Status, cond.LastUpdateTime, cond.LastTransitionTime = corev1.ConditionTrue, now, now
	up.Status.Conditions = kube.SetCondition(up.Status.Conditions, cond)
	_, err := c.client.Update(ctx, up, subresource)
	if apierrors.IsInvalid(err) {
		return fmt.Errorf("%s of request %q: %w", subresource, r.Name, err)
	}
	return control.IgnoreNotFound(err)
}

// lifetime returns how long a certificate is valid: a year, or less when that was asked for, but not less than ten minutes.
func lifetime(seconds *int32) time.Duration {
	if seconds == nil {
		return defaultLifetime
	}
	return min(max(kube.Seconds(*seconds), leastLifetime), defaultLifetime)
}

// deadline returns when a request is deleted. ok is false for one that stays: it has only conditions of other programs.
func deadline(r *certificatesv1.CertificateSigningRequest) (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if len(r.Status.Conditions) == 0 {
		earliest(r.CreationTimestamp.Add(pendingKept))
	}
	for _, c := range r.Status.Conditions {
		kept := handledKept
		switch c.Type {
		case certificatesv1.CertificateApproved:
			if len(r.Status.Certificate) == 0 {
				kept = pendingKept
			} else if end, is := notAfter(r.Status.Certificate); is {
				earliest(end)
			}
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
		default:
			continue
		}
		if !c.LastUpdateTime.IsZero() {
			earliest(c.LastUpdateTime.Add(kept))
		}
	}
	return at, ok
}

func notAfter(text []byte) (time.Time, bool) {
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}

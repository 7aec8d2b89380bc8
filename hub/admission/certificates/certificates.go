// Package certificates is the admission of CertificateSigningRequests: who may approve a signer's requests and who may sign them,
// and that no request asks for the administrators' group. Refusals have upstream's texts.
package certificates

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/csr"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// mastersGroup may do everything; no signer gives it away.
const mastersGroup = "system:masters"

// Checks are the checks with what decides about users. They are immutable.
type Checks struct {
	authorizer auth.Authorizer // nil: nobody may approve or sign
}

// New returns the checks.
func New(authorizer auth.Authorizer) *Checks { return &Checks{authorizer: authorizer} }

// Validate refuses what the user may not ask for, approve or sign. It passes over everything that is no CertificateSigningRequest.
func (c *Checks) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	if a.Kind.GVK != kube.CertificateSigningRequest {
		return nil
	}
	now, _ := a.Object.(*certificatesv1.CertificateSigningRequest)
	old, _ := a.Old.(*certificatesv1.CertificateSigningRequest)
	switch {
	case a.Operation == registry.OpCreate && a.Subresource == "" && now != nil:
		return restrictSubject(a, now)
	case a.Operation != registry.OpUpdate || now == nil || old == nil:
		return nil
	case a.Subresource == "approval":
		// By the signer that is stored: a request cannot change it.
		return c.decide(ctx, a, "approve", old.Spec.SignerName)
	case a.Subresource == "status" && changed(now, old):
		return c.decide(ctx, a, "sign", old.Spec.SignerName)
	}
	return nil
}

func changed(now, old *certificatesv1.CertificateSigningRequest) bool {
	return string(now.Status.Certificate) != string(old.Status.Certificate) || !equality.Semantic.DeepEqual(now.Status.Conditions, old.Status.Conditions)
}

func restrictSubject(a *registry.AdmissionRequest, r *certificatesv1.CertificateSigningRequest) error {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	req, err := csr.Parse(r.Spec.Request)
	if err != nil {
		return forbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
	}
	if slices.Contains(req.Subject.Organization, mastersGroup) {
		return forbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed", r.Spec.SignerName, mastersGroup))
	}
	return nil
}

// decide asks whether the user has a right on a signer, by its name or as one of its domain's ("example.com/*").
func (c *Checks) decide(ctx context.Context, a *registry.AdmissionRequest, verb, signer string) error {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		if c.authorizer == nil {
			break
		}
		// An error is a refusal, as everywhere.
		allowed, _, err := c.authorizer.Authorize(ctx, a.User, auth.Attributes{
			Verb: verb, Resource: true, APIGroup: certificatesv1.GroupName, APIVersion: "*", Plural: "signers", Name: name,
		})
		if err == nil && allowed {
			return nil
		}
	}
	return forbidden(a, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, signer))
}

// forbidden refuses a, naming the object as far as its name is known.
func forbidden(a *registry.AdmissionRequest, why error) error {
	name := a.Name
	if name == "" {
		name = a.Object.GetName()
	}
	if name == "" {
		name = a.Object.GetGenerateName()
	}
	if name == "" {
		name = "Unknown"
	}
	return apierrors.NewForbidden(a.Kind.Resource(), name, why)
}

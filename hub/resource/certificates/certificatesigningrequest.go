// Package certificates declares the kinds of certificates.k8s.io.
package certificates

import (
	"context"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/kubernetes/pkg/apis/certificates"
	_ "k8s.io/kubernetes/pkg/apis/certificates/install"
	"k8s.io/kubernetes/pkg/apis/certificates/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{certificateSigningRequestKind()} }

type (
	request   = certificatesv1.CertificateSigningRequest
	condition = certificatesv1.CertificateSigningRequestCondition
)

func certificateSigningRequestKind() *resource.Kind {
	k := resource.Declare(kube.CertificateSigningRequest,
		"certificatesigningrequests", "certificatesigningrequest")
	k.ClusterScoped()
	k.ShortNames = []string{"csr"}
	k.Rules = resource.Strategy[certificates.CertificateSigningRequest]{
		// Only the subresources change a request.
		PrepareUpdate: func(r, old *certificates.CertificateSigningRequest) {
			copied := old.DeepCopy()
			r.Spec, r.Status = copied.Spec, copied.Status
		},
		ValidateCreate: validation.ValidateCertificateSigningRequestCreate,
		ValidateUpdate: validation.ValidateCertificateSigningRequestUpdate,
	}.Rules()
	k.Rules.PrepareCreate = prepareRequest
	status := resource.Strategy[certificates.CertificateSigningRequest]{
		ValidateUpdate: validation.ValidateCertificateSigningRequestStatusUpdate,
	}.Status(k)
	status.Rules.PrepareUpdate = func(_ context.Context, obj, old kube.Object) {
		r, before := obj.(*request), old.(*request)
		r.Spec = *before.Spec.DeepCopy()
		keepDecisions(r, before, certificatesv1.CertificateApproved)
		keepDecisions(r, before, certificatesv1.CertificateDenied)
		stampConditions(r, before)
	}
	k.Subresources["status"] = status
	approval := resource.Strategy[certificates.CertificateSigningRequest]{
		ValidateUpdate: validation.ValidateCertificateSigningRequestApprovalUpdate,
	}.Subresource(k, "approval")
	approval.Rules.PrepareUpdate = func(_ context.Context, obj, old kube.Object) {
		r, before := obj.(*request), old.(*request)
		stampConditions(r, before)
		conditions, copied := r.Status.Conditions, before.DeepCopy()
		r.Spec, r.Status = copied.Spec, copied.Status
		r.Status.Conditions = conditions
	}
	k.Subresources["approval"] = approval
	k.SelectFields(func(obj kube.Object, s fields.Set) {
		s["spec.signerName"] = obj.(*request).Spec.SignerName
	}, "spec.signerName")
	return k
}

// prepareRequest writes down who asks: signers decide by it, so what the client claims does not count.
func prepareRequest(ctx context.Context, obj kube.Object) {
	r := obj.(*request)
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	r.Status = certificatesv1.CertificateSigningRequestStatus{}
	q := resource.RequestFrom(ctx)
	if q == nil {
		return
	}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups = q.User.Name, q.User.UID, slices.Clone(q.User.Groups)
	for key, values := range q.User.Extra {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[key] = slices.Clone(values)
	}
}

// keepDecisions keeps the conditions of one type as they were. Where there are more or fewer of them than before, validation
// refuses the update.
func keepDecisions(r, old *request, kind certificatesv1.RequestConditionType) {
	var before []condition
	for _, c := range old.Status.Conditions {
		if c.Type == kind {
			before = append(before, c)
		}
	}
	var now []*condition
	for i := range r.Status.Conditions {
		if c := &r.Status.Conditions[i]; c.Type == kind {
			now = append(now, c)
		}
	}
	if len(now) != len(before) {
		return
	}
	for i := range now {
		*now[i] = before[i]
	}
}

// stampConditions fills in the times that the writer left out.
func stampConditions(r, old *request) {
	now := metav1.Now().Rfc3339Copy()
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = now
			kube.KeepTransition(old.Status.Conditions, c)
		}
	}
}

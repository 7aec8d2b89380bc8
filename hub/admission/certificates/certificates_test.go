package certificates

import (
	"context"
	"errors"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/csr/csrtest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// rights are the signers on which a user has a right, as "USER VERB NAME".
type rights map[string]bool

func (r rights) Authorize(_ context.Context, u auth.User, a auth.Attributes) (bool, string, error) {
	if u.Name == "broken" {
		return true, "", errors.New("the policy cannot be read")
	}
	return a.Resource && a.APIGroup == "certificates.k8s.io" && a.Plural == "signers" && r[u.Name+" "+a.Verb+" "+a.Name], "", nil
}

// TestWhoMayDecide checks whose approvals, signatures and requests are refused, with upstream's texts.
func TestWhoMayDecide(t *testing.T) {
	who := rights{"ada approve example.com/mine": true, "bob approve example.com/*": true, "ada sign example.com/mine": true}
	request := func(signer string, organizations ...string) *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"},
			Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: csrtest.PEM(t, "x", organizations, nil)}}
	}
	mine, other := request("example.com/mine"), request("example.com/other")
	signed := mine.DeepCopy()
	signed.Status.Certificate = []byte("x")
	annotated := mine.DeepCopy()
	annotated.Annotations = map[string]string{"a": "b"}
	moved := mine.DeepCopy()
	moved.Spec.SignerName = "example.com/other"
	forged := request(certificatesv1.KubeAPIServerClientSignerName)
	forged.Spec.Request = []byte("x")
	for name, c := range map[string]struct {
		user, subresource string
		op                registry.Operation
		now, old          *certificatesv1.CertificateSigningRequest
		text              string // "": allowed
	}{
		"approve":                {"ada", "approval", registry.OpUpdate, mine, mine, ""},
		"approve a domain":       {"bob", "approval", registry.OpUpdate, other, other, ""},
		"approve another's":      {"ada", "approval", registry.OpUpdate, other, other, `user not permitted to approve requests with signerName "example.com/other"`},
		"approve as moved":       {"ada", "approval", registry.OpUpdate, mine, moved, "user not permitted to approve"},
		"approve unreadably":     {"broken", "approval", registry.OpUpdate, mine, mine, "user not permitted to approve"},
		"sign":                   {"ada", "status", registry.OpUpdate, signed, mine, ""},
		"sign as approver":       {"bob", "status", registry.OpUpdate, signed, mine, `user not permitted to sign requests with signerName "example.com/mine"`},
		"annotate by status":     {"eve", "status", registry.OpUpdate, annotated, mine, ""},
		"annotate":               {"eve", "", registry.OpUpdate, annotated, mine, ""},
		"ask":                    {"eve", "", registry.OpCreate, request(certificatesv1.KubeAPIServerClientSignerName, "ops"), nil, ""},
		"ask for everything":     {"eve", "", registry.OpCreate, request(certificatesv1.KubeAPIServerClientSignerName, "ops", "system:masters"), nil, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		"ask another for that":   {"eve", "", registry.OpCreate, request("example.com/mine", "system:masters"), nil, ""},
		"ask with a bad request": {"eve", "", registry.OpCreate, forged, nil, "failed to parse CSR"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &registry.AdmissionRequest{Operation: c.op, Object: c.now}
			if c.old != nil {
				a.Old = c.old
			}
			a.Kind, a.Subresource, a.User, a.Name = &resource.Kind{GVK: kube.CertificateSigningRequest, Plural: "certificatesigningrequests"}, c.subresource, auth.User{Name: c.user}, "r"
			err := New(who).Validate(t.Context(), a)
			if (c.text == "") != (err == nil) || err != nil && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.text)) {
				t.Errorf("%v", err)
			}
			if c.subresource == "approval" && New(nil).Validate(t.Context(), a) == nil {
				t.Error("without an authorizer everybody approves")
			}
		})
	}
}

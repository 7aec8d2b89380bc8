package certificates

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/csr/csrtest"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// rights are the subresources that a user may create, by user.
type rights map[string][]string

func (r rights) Authorize(_ context.Context, u auth.User, a auth.Attributes) (bool, string, error) {
	if u.Name == "broken" {
		return true, "", errors.New("the policy cannot be read")
	}
	return a.Verb == "create" && a.APIGroup == "certificates.k8s.io" && a.Plural == "certificatesigningrequests" && slices.Contains(r[u.Name], a.Subresource), "", nil
}

// signer signs in plain words, and notes for how long.
type signer struct{ lifetimes []time.Duration }

func (s *signer) SignRequest(req *x509.CertificateRequest, _ []certificatesv1.KeyUsage, lifetime time.Duration) ([]byte, error) {
	s.lifetimes = append(s.lifetimes, lifetime)
	return []byte("signed for " + req.Subject.CommonName), nil
}

func request(t *testing.T, name, by, cn string, organizations ...string) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", CreationTimestamp: metav1.Now()},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: csrtest.PEM(t, cn, organizations, nil), SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Username: by,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}
}

func approved(r *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Now(),
	})
	return r
}

func world(t *testing.T, who rights, have ...kube.Object) (*controltest.Client, *signer) {
	s := &signer{}
	c := controltest.New(t, have...)
	ctl := New(Config{Client: c, Signer: s, Authorizer: who})
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
	return c, s
}

func get(c *controltest.Client, name string) *certificatesv1.CertificateSigningRequest {
	r, _ := control.Get[*certificatesv1.CertificateSigningRequest](c, kube.CertificateSigningRequest, "", name)
	return r
}

// bubble runs f with a clock of this year.
func bubble(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(27 * 365 * 24 * time.Hour)
		f(t)
	})
}

// TestApproval checks which requests need no person: a node's client certificate, by a user with the right to get one.
func TestApproval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		other := request(t, "other-signer", "boot", "system:node:a", "system:nodes")
		other.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName
		seen := request(t, "seen", "eve", "system:node:a", "system:nodes") // has no end, but waits as others do
		seen.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Seen", Status: corev1.ConditionTrue}}
		who := rights{"boot": {"nodeclient"}, "system:node:a": {"selfnodeclient"}}
		c, _ := world(t, who,
			request(t, "boot", "boot", "system:node:a", "system:nodes"),
			request(t, "self", "system:node:a", "system:node:a", "system:nodes"),
			request(t, "another", "system:node:a", "system:node:b", "system:nodes"),
			request(t, "nobody", "eve", "system:node:a", "system:nodes"),
			request(t, "broken", "broken", "system:node:a", "system:nodes"),
			request(t, "no-node", "boot", "ada", "ops"),
			other, seen,
		)
		for name, message := range map[string]string{
			"boot": "Auto approving kubelet client certificate after SubjectAccessReview.", "self": "Auto approving self kubelet client certificate after SubjectAccessReview.",
			"another": "", "nobody": "", "broken": "", "no-node": "", "other-signer": "",
		} {
			r := get(c, name)
			cond := kube.FindCondition(r.Status.Conditions, certificatesv1.CertificateApproved)
			if (cond == nil) != (message == "") || cond != nil && (cond.Message != message || cond.Reason != "AutoApproved") || (len(r.Status.Certificate) > 0) != (message != "") {
				t.Errorf("%s: %+v, certificate %q", name, r.Status.Conditions, r.Status.Certificate)
			}
		}
		who["eve"] = []string{"nodeclient"} // the right comes later
		time.Sleep(askAgain)
		synctest.Wait()
		for _, name := range []string{"nobody", "seen"} {
			if len(get(c, name).Status.Certificate) == 0 {
				t.Errorf("%s: a right that was given later does not count", name)
			}
		}
	})
}

// TestSigning checks that an approved request is signed for as long as it asks, by the rules of its signer, once.
func TestSigning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		seconds := func(r *certificatesv1.CertificateSigningRequest, n int32) *certificatesv1.CertificateSigningRequest {
			r.Spec.ExpirationSeconds = &n
			return r
		}
		wrong := approved(request(t, "wrong", "ada", "ada", "ops"))
		foreign := approved(request(t, "foreign", "ada", "system:node:a", "system:nodes"))
		foreign.Spec.SignerName = "example.com/mine"
		denied := request(t, "denied", "ada", "system:node:a", "system:nodes")
		denied.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue}}
		c, s := world(t, nil, wrong, foreign, denied,
			approved(request(t, "a", "ada", "system:node:a", "system:nodes")),
			seconds(approved(request(t, "b", "ada", "system:node:b", "system:nodes")), 3600),
			seconds(approved(request(t, "c", "ada", "system:node:c", "system:nodes")), 1),
			seconds(approved(request(t, "d", "ada", "system:node:d", "system:nodes")), 1<<31-1),
		)
		if string(get(c, "a").Status.Certificate) != "signed for system:node:a" {
			t.Errorf("a: %+v", get(c, "a").Status)
		}
		if want := []time.Duration{defaultLifetime, time.Hour, leastLifetime, defaultLifetime}; !slices.Equal(s.lifetimes, want) {
			t.Errorf("lifetimes %v", s.lifetimes)
		}
		failed := kube.FindCondition(get(c, "wrong").Status.Conditions, certificatesv1.CertificateFailed)
		if failed == nil || failed.Reason != "SignerValidationFailure" || failed.Message != "subject organization is not system:nodes" {
			t.Errorf("wrong: %+v", failed)
		}
		for _, name := range []string{"foreign", "denied"} {
			if len(get(c, name).Status.Certificate) > 0 || len(get(c, name).Status.Conditions) != 1 {
				t.Errorf("%s: %+v", name, get(c, name).Status)
			}
		}
	})
}

// TestCleanup checks when a request goes, by its state.
func TestCleanup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		with := func(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Now()})
			return r
		}
		foreign := approved(request(t, "foreign", "ada", "a"))
		foreign.Spec.SignerName = "example.com/mine"
		short := approved(request(t, "short", "ada", "a"))
		der := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, 10*time.Minute)})
		short.Status.Certificate = der
		c, _ := world(t, nil,
			request(t, "pending", "ada", "a"), foreign, short,
			approved(request(t, "issued", "ada", "system:node:a", "system:nodes")),
			with(request(t, "denied", "ada", "a"), certificatesv1.CertificateDenied),
			with(request(t, "failed", "ada", "a"), certificatesv1.CertificateFailed),
			with(request(t, "other", "ada", "a"), "Seen"),
		)
		left := func() (names []string) {
			synctest.Wait()
			for _, r := range c.List(kube.CertificateSigningRequest, "") {
				names = append(names, r.GetName())
			}
			return names
		}
		for _, step := range []struct {
			after time.Duration
			want  []string
		}{
			{0, []string{"denied", "failed", "foreign", "issued", "other", "pending", "short"}},
			{11 * time.Minute, []string{"denied", "failed", "foreign", "issued", "other", "pending"}},
			{48 * time.Minute, []string{"denied", "failed", "foreign", "issued", "other", "pending"}},
			{2 * time.Minute, []string{"foreign", "other", "pending"}},
			{22*time.Hour + 58*time.Minute, []string{"foreign", "other", "pending"}},
			{2 * time.Minute, []string{"other"}},
		} {
			time.Sleep(step.after)
			if got := left(); !slices.Equal(got, step.want) {
				t.Errorf("after %s more: %q", step.after, got)
			}
		}
	})
}

// certificate is one that ends after a time.
func certificate(t *testing.T, life time.Duration) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// TestCertificateRequest checks on a whole hub that a request that a person approves becomes a certificate that opens the API.
func TestCertificateRequest(t *testing.T) {
	withHub(t, t.TempDir(), "", func(h *Hub, c kubernetes.Interface) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ada", Organization: []string{"ops"}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		requests := c.CertificatesV1().CertificateSigningRequests()
		r, err := requests.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "ada"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: certificatesv1.KubeAPIServerClientSignerName,
				Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature}, Username: "king",
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Spec.Username != "petrel-admin" {
			t.Errorf("requested by %q", r.Spec.Username)
		}
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Known"}}
		if r, err = requests.UpdateApproval(t.Context(), "ada", r, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w, err := requests.Watch(t.Context(), metav1.ListOptions{ResourceVersion: r.ResourceVersion, FieldSelector: fields.OneTermEqualSelector("metadata.name", "ada").String()})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		for len(r.Status.Certificate) == 0 {
			e := <-w.ResultChan()
			next, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
			if !ok {
				t.Fatalf("watched %v", e)
			}
			r = next
		}
		own, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig())
		if err != nil {
			t.Fatal(err)
		}
		config = rest.AnonymousClientConfig(config)
		config.CertData, config.KeyData = r.Status.Certificate, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: own})
		ada, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		me, err := ada.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil || me.Status.UserInfo.Username != "ada" || me.Status.UserInfo.Groups[0] != "ops" {
			t.Errorf("%+v, %v", me, err)
		}
	})
}

package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/kube"
)

// objects is what exists.
type objects map[string]kube.Object

func (o objects) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	v, ok := o[gvk.Kind+"/"+namespace+"/"+name]
	return v, ok
}

func (o objects) CatchUp(context.Context) error { return nil }

// late are objects that show only after CatchUp.
type late struct {
	objects
	committed objects
}

func (l late) CatchUp(context.Context) error {
	maps.Copy(l.objects, l.committed)
	return nil
}

// A token is good at once: reads catch up with what was made just before it.
func TestTokenOfWhatWasJustMade(t *testing.T) {
	p := newWorld().load(t, t.TempDir())
	have := late{objects{}, objects{"ServiceAccount/shop/till": account("sa-1"), "Pod/shop/till-0": pod("pod-1")}}
	a := NewAuthenticator(p, have)
	token, _, err := p.tokens.IssueToken(t.Context(), account("sa-1"), satoken.Bound{Pod: pod("pod-1")}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok, err := a.Authenticate(bearing(token)); !ok || u.UID != "sa-1" {
		t.Errorf("user %+v, %v", u, err)
	}
}

func account(uid string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "till", UID: types.UID(uid)}}
}

func pod(uid string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "till-0", UID: types.UID(uid)}, Spec: corev1.PodSpec{NodeName: "pi-1"}}
}

// ending marks o as being deleted, with the end of its grace period at.
func ending[O kube.Object](o O, at time.Time) O {
	t := metav1.NewTime(at)
	o.SetDeletionTimestamp(&t)
	return o
}

func bearing(token string) *http.Request {
	r := httptest.NewRequest("GET", "/api", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestServiceAccountToken(t *testing.T) {
	w := newWorld()
	p := w.load(t, t.TempDir())
	have := objects{"ServiceAccount/shop/till": account("sa-1"), "Pod/shop/till-0": pod("pod-1")}
	a := NewAuthenticator(p, have)
	token, expires, err := p.tokens.IssueToken(context.Background(), account("sa-1"), satoken.Bound{Pod: pod("pod-1")}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !expires.Equal(w.now.Add(time.Hour)) {
		t.Errorf("expires %s", expires)
	}
	u, ok, err := a.Authenticate(bearing(token))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if u.Name != "system:serviceaccount:shop:till" || u.UID != "sa-1" || !slices.Contains(u.Groups, "system:serviceaccounts:shop") ||
		!slices.Contains(u.Groups, "system:authenticated") || u.Extra["authentication.kubernetes.io/pod-uid"][0] != "pod-1" ||
		u.Extra["authentication.kubernetes.io/node-name"][0] != "pi-1" {
		t.Errorf("user is %+v", u)
	}

	for _, tt := range []struct {
		name   string
		change func()
		undo   func()
		says   string
	}{
		{"pod replaced", func() { have["Pod/shop/till-0"] = pod("pod-2") }, func() { have["Pod/shop/till-0"] = pod("pod-1") }, "pod shop/till-0"},
		{"pod gone", func() { delete(have, "Pod/shop/till-0") }, func() { have["Pod/shop/till-0"] = pod("pod-1") }, "pod shop/till-0"},
		{"account replaced", func() { have["ServiceAccount/shop/till"] = account("sa-2") }, func() { have["ServiceAccount/shop/till"] = account("sa-1") }, "service account shop/till"},
		{"pod's end a minute ago", func() { have["Pod/shop/till-0"] = ending(pod("pod-1"), w.now.Add(-61*time.Second)) }, func() { have["Pod/shop/till-0"] = pod("pod-1") }, "pod shop/till-0"},
		{"account's end a minute ago", func() { have["ServiceAccount/shop/till"] = ending(account("sa-1"), w.now.Add(-61*time.Second)) }, func() { have["ServiceAccount/shop/till"] = account("sa-1") }, "service account shop/till"},
		{"expired", func() { w.now = w.now.Add(time.Hour) }, func() { w.now = w.now.Add(-time.Hour) }, "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change()
			defer tt.undo()
			_, ok, err := a.Authenticate(bearing(token))
			if ok || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("ok %v, error %v", ok, err)
			}
		})
	}
	if _, ok, err := a.Authenticate(bearing(token)); !ok {
		t.Errorf("the token is no longer good: %v", err)
	}
	// A pod that shuts down may still say goodbye.
	for _, left := range []time.Duration{30 * time.Second, 0, -59 * time.Second} {
		have["Pod/shop/till-0"] = ending(pod("pod-1"), w.now.Add(left))
		if _, ok, err := a.Authenticate(bearing(token)); !ok {
			t.Errorf("%s before its end: %v", left, err)
		}
	}
	have["Pod/shop/till-0"] = pod("pod-1")
	// A clock that goes back does not make our own tokens "not yet valid".
	w.now = w.now.Add(-48 * time.Hour)
	if _, ok, err := a.Authenticate(bearing(token)); !ok {
		t.Error(err)
	}
}

func TestForgedTokens(t *testing.T) {
	w := newWorld()
	p, other := w.load(t, t.TempDir()), w.load(t, t.TempDir())
	have := objects{"ServiceAccount/shop/till": account("sa-1")}
	a := NewAuthenticator(p, have)
	issue := func(p *PKI, auds []string) string {
		token, _, err := p.tokens.IssueToken(context.Background(), account("sa-1"), satoken.Bound{}, auds, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := issue(p, nil)
	parts := strings.Split(good, ".")
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	raised := base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(string(body), "till", "king")))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for name, token := range map[string]string{
		"another hub's":     issue(other, nil),
		"for another party": issue(p, []string{"vault"}),
		"changed claims":    parts[0] + "." + raised + "." + parts[2],
		"algorithm none":    none + "." + parts[1] + ".",
		"no signature":      parts[0] + "." + parts[1],
		"not a JWT":         "letmein",
		"cut short":         good[:len(good)-8],
		"four parts":        good + ".x",
	} {
		t.Run(name, func(t *testing.T) {
			if u, ok, err := a.Authenticate(bearing(token)); ok || err == nil {
				t.Errorf("accepted as %q", u.Name)
			}
		})
	}
	_, accepted, err := a.Token(t.Context(), issue(p, []string{"bank", "vault"}), []string{"vault", "shop"})
	if err != nil || !slices.Equal(accepted, []string{"vault"}) {
		t.Errorf("a token for vault does not open vault: %q, %v", accepted, err)
	}
	if _, ok, err := a.Authenticate(httptest.NewRequest("GET", "/api", nil)); ok || err != nil {
		t.Errorf("a stranger: ok %v, error %v", ok, err)
	}
}

func TestClientCertificates(t *testing.T) {
	w := newWorld()
	p, other := w.load(t, t.TempDir()), w.load(t, t.TempDir())
	a := NewAuthenticator(p, objects{})
	showing := func(c *x509.Certificate) *http.Request {
		r := httptest.NewRequest("GET", "/api", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
		return r
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	user := leaf{subject: pkix.Name{CommonName: "ada", Organization: []string{"ops"}}, usage: x509.ExtKeyUsageClientAuth}
	ada, err := user.issue(p.ca, p.caKey, &key.PublicKey, w.now)
	if err != nil {
		t.Fatal(err)
	}
	u, ok, err := a.Authenticate(showing(ada))
	if !ok || err != nil || u.Name != "ada" || !slices.Equal(u.Groups, []string{"ops", "system:authenticated"}) {
		t.Errorf("%+v %v %v", u, ok, err)
	}
	if u, ok, err = a.Authenticate(showing(p.admin)); !ok || !slices.Contains(u.Groups, "system:masters") {
		t.Errorf("%+v %v %v", u, ok, err)
	}
	// An agent's own certificate is simply nobody's here, not an error.
	if _, ok, err = a.Authenticate(showing(other.admin)); ok || err != nil {
		t.Errorf("another hub's administrator: %v %v", ok, err)
	}
	if _, ok, err = a.Authenticate(showing(p.server.Leaf)); ok || err == nil {
		t.Errorf("a server's certificate as a client's: %v %v", ok, err)
	}
	w.now = w.now.Add(leafLifetime + time.Hour)
	if _, ok, err = a.Authenticate(showing(ada)); ok || err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an old certificate: %v %v", ok, err)
	}
}

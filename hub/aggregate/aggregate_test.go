package aggregate

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/controltest"
)

// backend is a small aggregated API server: it knows its front proxy by the certificate's CA and name, and answers with who asks.
type backend struct {
	*httptest.Server
	proxies *x509.CertPool
	list    string
	hostile atomic.Pointer[http.HandlerFunc] // answers instead; nil: none
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "no certificate", http.StatusUnauthorized)
		return
	}
	cert := r.TLS.PeerCertificates[0]
	if _, err := cert.Verify(x509.VerifyOptions{Roots: b.proxies, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || cert.Subject.CommonName != auth.FrontProxyName {
		http.Error(w, fmt.Sprintf("%s: %v", cert.Subject.CommonName, err), http.StatusUnauthorized)
		return
	}
	if f := b.hostile.Load(); f != nil {
		(*f)(w, r)
		return
	}
	switch r.URL.Path {
	case "/apis/wardle.example.com/v1alpha1":
		_, _ = io.WriteString(w, b.list)
	case "/apis/wardle.example.com/v1alpha1/moved":
		http.Redirect(w, r, "https://elsewhere/", http.StatusFound)
	case "/apis/wardle.example.com/v1alpha1/flunders":
		w.WriteHeader(http.StatusOK)
		for i := range 2 { // events of a watch
			fmt.Fprintf(w, "{\"event\":%d}\n", i)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	default:
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s by %v in %v, %v, authorization %q%s, body %q", r.Method, r.RequestURI, r.Header["X-Remote-User"], r.Header["X-Remote-Group"],
			r.Header["X-Remote-Extra-Scopes%2fx"], r.Header.Get("Authorization"), r.Header.Get("Sec-Websocket-Protocol"), body)
	}
}

func (b *backend) DialService(_ context.Context, namespace, name string, port int32) (net.Conn, error) {
	if namespace != "wardle" || name != "api" || port != 443 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	return net.Dial("tcp", b.Listener.Addr().String())
}

func start(t *testing.T) (*Aggregator, *backend, *apiregistrationv1.APIService, *controltest.Client) {
	t.Helper()
	pki, err := auth.LoadPKI(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := pki.FrontProxy()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.FrontProxy()
	if err != nil || string(again.CA()) != string(identity.CA()) || string(identity.CA()) == string(pki.CA()) {
		t.Fatalf("the CA of the front proxy is not kept, or is the clients': %v", err)
	}
	b := &backend{proxies: x509.NewCertPool(), list: `{"kind":"APIResourceList","groupVersion":"wardle.example.com/v1alpha1","resources":[{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get","list"]},{"name":"flunders/status","namespaced":true,"kind":"Flunder","verbs":["get"]}]}`}
	b.proxies.AppendCertsFromPEM(identity.CA())
	b.Server = httptest.NewUnstartedServer(b)
	b.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	b.StartTLS()
	t.Cleanup(b.Close)
	svc := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1alpha1.wardle.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
		Group: "wardle.example.com", Version: "v1alpha1", InsecureSkipTLSVerify: true, Service: &apiregistrationv1.ServiceReference{Namespace: "wardle", Name: "api"}},
		Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue}}}}
	local := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.apps"}, Spec: apiregistrationv1.APIServiceSpec{Group: "apps", Version: "v1"}}
	svc.SetGroupVersionKind(APIService)
	local.SetGroupVersionKind(APIService)
	objs := controltest.New(t, svc, local)
	return New(Config{Objects: objs, Dialer: b, Identity: identity, Log: slog.New(slog.DiscardHandler)}), b, svc, objs
}

// ask sends one request through the aggregator, as a user would through the hub.
func ask(t *testing.T, a *Aggregator, svc *apiregistrationv1.APIService, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("Sec-Websocket-Protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0") // as browsers send tokens
	r.Header.Set("X-Remote-User", "admin")
	r.Header.Set("X-Remote-Group", "system:masters")
	w := httptest.NewRecorder()
	user := auth.User{Name: "ann", Groups: []string{"dev", "system:authenticated"}, Extra: map[string][]string{"scopes/x": {"a", "b"}}}
	a.Serve(w, r, user, svc, func(err error) {
		var known apierrors.APIStatus
		if !errors.As(err, &known) {
			t.Fatalf("%v is no Status", err)
		}
		http.Error(w, known.Status().Message, int(known.Status().Code))
	})
	return w.Code, w.Body.String()
}

// TestServe covers what the server behind gets of a request, and what the client gets when there is none.
func TestServe(t *testing.T) {
	a, b, svc, _ := start(t)
	if _, ok := a.Remote(schema.GroupVersion{Group: "apps", Version: "v1"}); ok {
		t.Error("a local APIService leads elsewhere")
	}
	if got, ok := a.Remote(schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}); !ok || got.Name != svc.Name {
		t.Errorf("%v, %v", got, ok)
	}
	code, body := ask(t, a, svc, "POST", "/apis/wardle.example.com/v1alpha1/namespaces/x/fischers?dryRun=All", "hello")
	if want := `POST /apis/wardle.example.com/v1alpha1/namespaces/x/fischers?dryRun=All by [ann] in [dev system:authenticated], [a b], authorization "", body "hello"`; code != 200 || body != want {
		t.Errorf("%d %s; want %s", code, body, want)
	}
	if code, body := ask(t, a, svc, "GET", "/apis/wardle.example.com/v1alpha1/moved", ""); code != 502 || !strings.Contains(body, "attempted to redirect") {
		t.Errorf("a redirect: %d %s", code, body)
	}
	wrong := svc.DeepCopy()
	wrong.Spec.InsecureSkipTLSVerify = false
	wrong.Spec.CABundle = a.cfg.Identity.CA()
	if code, body := ask(t, a, wrong, "GET", "/apis/wardle.example.com/v1alpha1/x", ""); code != 503 || !strings.Contains(body, "error trying to reach service") {
		t.Errorf("a server with another certificate: %d %s", code, body)
	}
	wrong.Spec.CABundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Certificate().Raw})
	if code, body := ask(t, a, wrong, "GET", "/apis/wardle.example.com/v1alpha1/x", ""); code != 503 || !strings.Contains(body, "api.wardle.svc") {
		t.Errorf("a server with another name: %d %s", code, body)
	}
	gone := svc.DeepCopy()
	gone.Spec.Service.Name = "none"
	if code, body := ask(t, a, gone, "GET", "/apis/wardle.example.com/v1alpha1/x", ""); code != 503 || !strings.Contains(body, `no endpoints available for service "none"`) {
		t.Errorf("no endpoints: %d %s", code, body)
	}
	gone.Status.Conditions[0].Status = apiregistrationv1.ConditionFalse
	if code, body := ask(t, a, gone, "GET", "/apis/wardle.example.com/v1alpha1/x", ""); code != 503 || body != "service unavailable\n" {
		t.Errorf("not available: %d %s", code, body)
	}
}

// TestWatch reads events one by one while the server goes on with its answer.
func TestWatch(t *testing.T) {
	a, _, svc, _ := start(t)
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Serve(w, r, auth.User{Name: "ann"}, svc, func(err error) { t.Error(err) })
	}))
	defer hub.Close()
	resp, err := http.Get(hub.URL + "/apis/wardle.example.com/v1alpha1/flunders?watch=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for i := range 2 {
		if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("{\"event\":%d}\n", i) {
			t.Errorf("event %d: %q, %v", i, line, err)
		}
	}
}

// TestLook checks that discovery shows what servers list, says when one is not there, and changes its generation only with that.
func TestLook(t *testing.T) {
	a, b, svc, objs := start(t)
	if len(a.Versions()) != 0 {
		t.Errorf("nobody has looked, and there is %v", a.Versions())
	}
	for range 2 {
		if err := a.Look(t.Context(), svc); err != nil {
			t.Fatal(err)
		}
	}
	after := a.Generation()
	v := a.Versions()
	if len(v) != 1 || !v[0].Current || len(v[0].Resources) != 2 || v[0].Group != "wardle.example.com" {
		t.Fatalf("%+v", v)
	}
	if err := a.Look(t.Context(), svc); err != nil || a.Generation() != after {
		t.Errorf("nothing has changed, and the generation has: %v", err)
	}
	list := b.list
	b.list = "nonsense"
	if err := a.Look(t.Context(), svc); err == nil || !strings.Contains(err.Error(), "failing or missing response from https://api.wardle.svc:443/apis/wardle.example.com/v1alpha1") {
		t.Errorf("%v", err)
	}
	if v := a.Versions(); len(v) != 1 || v[0].Current || len(v[0].Resources) != 2 || a.Generation() == after {
		t.Errorf("a server that is not there: %+v", v)
	}
	b.list = strings.Replace(list, `"get","list"`, `"get","list","watch"`, 1)
	after = a.Generation()
	if err := a.Look(t.Context(), svc); err != nil || a.Generation() == after {
		t.Errorf("a new verb: %v", err)
	}
	if err := objs.Delete(t.Context(), APIService, "", svc.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.Forget(svc.Name)
	if b, _ := json.Marshal(a.Versions()); string(b) != "null" {
		t.Errorf("left over: %s", b)
	}
}

// TestGet reads as a user of the hub's own: the server sees that user, a refusal keeps its Status, and what is not served is no error.
func TestGet(t *testing.T) {
	a, b, svc, objs := start(t)
	user := auth.Controller("horizontal-pod-autoscaler").User
	gv := schema.GroupVersion{Group: "wardle.example.com", Version: "v1alpha1"}
	body, served, err := a.Get(t.Context(), user, gv, "namespaces/n/pods/*/x", url.Values{"labelSelector": {"a=b"}})
	if err != nil || !served || !strings.HasPrefix(string(body), "GET /apis/wardle.example.com/v1alpha1/namespaces/n/pods/*/x?labelSelector=a%3Db by [system:serviceaccount:kube-system:horizontal-pod-autoscaler]") {
		t.Errorf("%v, %v: %s", served, err, body)
	}
	if _, served, err := a.Get(t.Context(), user, schema.GroupVersion{Group: "apps", Version: "v1"}, "x", nil); served || err != nil {
		t.Errorf("the hub's own group: %v, %v", served, err)
	}
	if _, served, err := a.Get(t.Context(), user, gv, "moved", nil); !served || err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("a redirect: %v, %v", served, err)
	}
	b.Close()
	if _, served, err := a.Get(t.Context(), user, gv, "x", nil); !served || err == nil {
		t.Errorf("a server that is gone: %v, %v", served, err)
	}
	down := svc.DeepCopy()
	down.Status.Conditions[0].Status = apiregistrationv1.ConditionFalse
	objs.Put(down)
	if _, served, err := a.Get(t.Context(), user, gv, "x", nil); !served || !apierrors.IsServiceUnavailable(err) {
		t.Errorf("one that is not available: %v, %v", served, err)
	}
}

package hub

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// TestWholeHubAggregates installs an aggregated API server as a chart does: it reads from the hub's ConfigMap who its front proxy is,
// its Service leads to an address of this machine, and once its APIService is available clients find and use it.
func TestWholeHubAggregates(t *testing.T) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	addresses := reachable(all, netip.Prefix{})
	if len(addresses) == 0 {
		t.Skip("this machine has no address but loopback, which the hub does not dial for others")
	}
	h, stop := startHub(t, "")
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c := kubernetes.NewForConfigOrDie(config)
	raw := func(path string) (string, error) {
		b, err := c.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		return string(b), err
	}
	eventually := func(what string, f func() error) {
		t.Helper()
		var err error
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(20 * time.Millisecond) {
			if err = f(); err == nil {
				return
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	var published *corev1.ConfigMap
	eventually("the ConfigMap is published", func() (err error) {
		published, err = c.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
		return err
	})
	proxies := x509.NewCertPool()
	if !proxies.AppendCertsFromPEM([]byte(published.Data["requestheader-client-ca-file"])) || published.Data["requestheader-allowed-names"] != `["front-proxy-client"]` {
		t.Fatalf("published: %v", published.Data)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cert := r.TLS.PeerCertificates[0]
		if _, err := cert.Verify(x509.VerifyOptions{Roots: proxies, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/apis/wardle.example.com/v1" {
			_, _ = io.WriteString(w, `{"kind":"APIResourceList","groupVersion":"wardle.example.com/v1","resources":[{"name":"flunders","namespaced":true,"kind":"Flunder","verbs":["list"]}]}`)
			return
		}
		fmt.Fprintf(w, "%s for %s", r.URL.Path, r.Header.Get("X-Remote-User"))
	}))
	srv.Listener.Close()
	if srv.Listener, err = net.Listen("tcp", net.JoinHostPort(addresses[0], "0")); err != nil {
		t.Fatal(err)
	}
	srv.TLS = h.pki.ServerTLS() // asks for client certificates
	srv.StartTLS()
	defer srv.Close()
	port := int32(srv.Listener.Addr().(*net.TCPAddr).Port)
	const ns = metav1.NamespaceDefault
	if _, err := c.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "api"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 443}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	apiService := `{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.wardle.example.com"},"spec":{"group":"wardle.example.com","version":"v1",
		"groupPriorityMinimum":2000,"versionPriority":200,"insecureSkipTLSVerify":true,"service":{"name":"api","namespace":"default"}}}`
	const services = "/apis/apiregistration.k8s.io/v1/apiservices"
	if err := c.CoreV1().RESTClient().Post().AbsPath(services).SetHeader("Content-Type", "application/json").Body([]byte(apiService)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	condition := func(name, want string) func() error {
		return func() error {
			body, err := raw(services + "/" + name)
			if err == nil && !strings.Contains(body, want) {
				err = errors.New(body)
			}
			return err
		}
	}
	eventually("the group apps is registered", condition("v1.apps", `"reason":"Local"`))
	eventually("there are no endpoints", condition("v1.wardle.example.com", `"reason":"EndpointsNotFound"`))
	if body, err := raw("/apis/wardle.example.com/v1/flunders"); err == nil {
		t.Errorf("it answers without endpoints: %s", body)
	}
	name := "https"
	if _, err := c.DiscoveryV1().EndpointSlices(ns).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "api-1", Labels: map[string]string{discoveryv1.LabelServiceName: "api"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: addresses[:1]}}, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("the server is available", condition("v1.wardle.example.com", `"reason":"Passed"`))
	eventually("its answers come through", func() error {
		body, err := raw("/apis/wardle.example.com/v1/flunders")
		if err == nil && body != "/apis/wardle.example.com/v1/flunders for petrel-admin" {
			err = errors.New(body)
		}
		return err
	})
	list, err := c.Discovery().ServerResourcesForGroupVersion("wardle.example.com/v1")
	if err != nil || len(list.APIResources) != 1 {
		b, _ := json.Marshal(list)
		t.Errorf("discovery: %s, %v", b, err)
	}
	srv.Close()
	if body, err := raw("/apis/wardle.example.com/v1/flunders"); err == nil || !strings.Contains(err.Error()+body, "error trying to reach service") && !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("a server that is gone: %s, %v", body, err)
	}
}

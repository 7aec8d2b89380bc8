package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	nodeauth "petrel.dev/petrel/hub/auth/node"
	"petrel.dev/petrel/hub/auth/rbac"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/registry/reviews"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/bootstrappolicy"
	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/hub/resource/openapi"
)

// hub is the API as a hub serves it: TLS, real keys, a real registry on a real store. Only the nodes are missing.
type hub struct {
	t          testing.TB
	url        string
	kubeconfig string
	pki        *auth.PKI
	kinds      *resource.Kinds // what is served, for tests that change it
	reg        *registry.Registry
	cache      *objects.Cache
	policy     auth.Authorizer
	rights     *rbac.Authorizer // the part of policy that follows the stored roles
	config     *rest.Config
	closing    chan struct{}
	stop       func()
}

// policy returns what a hub decides by, over objects of the test's own.
func policy(t testing.TB, o interface {
	rbac.Objects
	nodeauth.Objects
}) (auth.Union, *rbac.Authorizer) {
	t.Helper()
	nodes, err := nodeauth.New(nodeauth.Config{
		Objects: o, Rules: bootstrappolicy.NodeRules(), PodSecrets: core.PodSecrets, PodConfigMaps: core.PodConfigMaps, VolumeSecrets: core.VolumeSecrets,
	})
	if err != nil {
		t.Fatal(err)
	}
	roles := rbac.New(o)
	return auth.Union{auth.Masters{}, nodes, roles}, roles
}

// bootstrap makes the roles that every hub has.
func bootstrap(t testing.TB, client control.Client) {
	t.Helper()
	var writes []control.Write
	for _, o := range bootstrappolicy.Objects() {
		writes = append(writes, control.Write{Object: o})
	}
	if err := client.Commit(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	if err := client.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

type option func(*apiserver.Config)

func newHub(t testing.TB, opts ...option) *hub {
	t.Helper()
	return newHubOf(t, registrytest.Kinds(), nil, opts...)
}

// newHubOf is newHub with a table of kinds and an admission (nil: none) of the test's own.
func newHubOf(t testing.TB, kinds *resource.Kinds, admission registry.Admission, opts ...option) *hub {
	t.Helper()
	h := &hub{t: t, kinds: kinds, closing: make(chan struct{})}
	dir := t.TempDir()
	var err error
	if h.pki, err = auth.LoadPKI(filepath.Join(dir, "pki")); err != nil {
		t.Fatal(err)
	}
	store := registrytest.Store(t)
	cache := objects.New(objects.Config{Store: store, Kinds: kinds})
	credentials := auth.NewAuthenticator(h.pki, cache)
	authorizer, rights := policy(t, cache)
	h.cache, h.policy, h.rights = cache, authorizer, rights
	if err := reviews.Install(kinds, credentials, authorizer); err != nil {
		t.Fatal(err)
	}
	h.reg = registrytest.Start(t, registry.Config{Store: store, Kinds: kinds, Objects: cache, Admission: admission})
	cfg := apiserver.Config{
		Verbs:         h.reg,
		Kinds:         kinds,
		Authenticator: credentials,
		Authorizer:    authorizer,
		OpenAPI:       openapi.New(kinds),
		JWKS:          h.pki.Tokens().JWKS,
		Version:       version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3+petrel", Platform: "linux/amd64"},
		Log:           slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Closing:       h.closing,
	}
	for _, o := range opts {
		o(&cfg)
	}
	handler, err := apiserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig := h.pki.ServerTLS()
	tlsConfig.NextProtos = []string{"h2", "http/1.1"}
	srv := &http.Server{Handler: handler, TLSConfig: tlsConfig, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	h.stop = sync.OnceFunc(func() {
		close(h.closing)
		if c, err := rest.HTTPClientFor(h.config); err == nil {
			c.CloseIdleConnections() // or HTTP/2's goodbye takes a second
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("the server did not stop: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(h.stop)
	h.url = "https://" + ln.Addr().String()
	h.kubeconfig = filepath.Join(dir, "admin.kubeconfig")
	if err := h.pki.WriteKubeconfig(h.kubeconfig, h.url); err != nil {
		t.Fatal(err)
	}
	if h.config, err = clientcmd.BuildConfigFromFlags("", h.kubeconfig); err != nil {
		t.Fatal(err)
	}
	h.config.QPS = -1
	h.namespace("default")
	return h
}

// clientTLS is a client configuration with the administrator's certificate, as the kubeconfig has it.
func clientTLS(t testing.TB, pki *auth.PKI) *tls.Config {
	t.Helper()
	kubeconfig, err := pki.Kubeconfig("https://hub")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(cfg.CertData, cfg.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cfg.CAData) {
		t.Fatal("the kubeconfig has no CA")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{cert}}
}

func (h *hub) namespace(name string) {
	h.t.Helper()
	_, err := h.client().CoreV1().Namespaces().Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) client() kubernetes.Interface {
	h.t.Helper()
	c, err := kubernetes.NewForConfig(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// answer is an HTTP answer, read to its end.
type answer struct {
	code   int
	header http.Header
	body   string
}

// do sends a request as the administrator. headers are "Name: value".
func (h *hub) do(method, path, body string, headers ...string) answer {
	h.t.Helper()
	c, err := rest.HTTPClientFor(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	return send(h.t, c, method, h.url+path, body, headers...)
}

func send(t testing.TB, c *http.Client, method, url, body string, headers ...string) answer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, hd := range headers {
		k, v, _ := strings.Cut(hd, ": ")
		req.Header.Add(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

var kubectlPath string

// kubectl runs the real kubectl, with stdin, and returns what it printed and its exit code.
func (h *hub) kubectl(stdin string, args ...string) (out string, code int) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), kubectlPath, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HOME="+filepath.Dir(h.kubeconfig))
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// run builds kubectl once for all tests, unless PETREL_KUBECTL names one.
func run(m *testing.M) int {
	if kubectlPath = os.Getenv("PETREL_KUBECTL"); kubectlPath != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "petrel-kubectl-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	kubectlPath = filepath.Join(dir, "kubectl")
	if out, err := exec.Command("go", "build", "-ldflags", "-X k8s.io/component-base/version.gitVersion=v1.36.3", "-o", kubectlPath, "petrel.dev/petrel/test/tools/kubectl").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build kubectl: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// testLog shows the server's warnings with the test that they belong to.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(string(bytes.TrimSpace(b)))
	}
	return len(b), nil
}

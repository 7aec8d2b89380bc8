// Package cli is Petrel's client: the verbs that people know from kubectl, over the Kubernetes API of a hub (or of any
// other cluster). Each command is a struct whose tags are its flags, with a Run method; cmd/petrel adds them to its
// command tree. Tables come from the server, so the columns are the server's. Describe, Drain, Rollout and Explain do their work
// with kubectl's libraries (docs/adr/0009-kubectl-libraries.md has the reasons).
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"petrel.dev/petrel/internal/cli/once"
)

// Cluster selects the cluster and the user of a request; every client command embeds it.
type Cluster struct {
	Kubeconfig string `help:"Kubeconfig file. Default: $$KUBECONFIG, ~/.kube/config, then the local hub's admin.kubeconfig." placeholder:"FILE" type:"path"`
	Context    string `help:"Context of the kubeconfig to use." placeholder:"NAME"`
	Namespace  string `short:"n" help:"Namespace of the request." placeholder:"NAME"`
	Color      string `enum:"auto,always,never" default:"auto" help:"Colours: ${enum}. auto: on a terminal, unless $$NO_COLOR is set." placeholder:"WHEN"`
}

// Streams are where a command reads and writes; and the path of a local hub's own kubeconfig, the last resort.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// LocalKubeconfig is used when neither a flag nor the user's own kubeconfig names a cluster.
	LocalKubeconfig string
}

// conn has the clients of one cluster.
type conn struct {
	config    *rest.Config
	http      *http.Client
	namespace string // default for the request
	discovery discovery.CachedDiscoveryInterface
	mapper    meta.RESTMapper
	dynamic   dynamic.Interface
}

// connect reads the kubeconfig; it makes no request yet.
func (c Cluster) connect(ctx context.Context, s *Streams) (*conn, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: c.Context, Context: clientcmdapi.Context{Namespace: c.Namespace}}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) && c.Kubeconfig == "" {
		if _, statErr := os.Stat(s.LocalKubeconfig); statErr == nil {
			rules.ExplicitPath = s.LocalKubeconfig
			loader = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
			config, err = loader.ClientConfig()
		}
	}
	if env := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); clientcmd.IsEmptyConfig(err) && c.Kubeconfig == "" && env != "" {
		return nil, fmt.Errorf("$KUBECONFIG is %s, which names no cluster (does the file exist?); unset it, or put there what `petrel kubeconfig` prints on the hub", env)
	}
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("no cluster is configured: no --kubeconfig, $KUBECONFIG or ~/.kube/config, and no local hub's %s; "+
			"run `petrel kubeconfig` on the hub and save its output here as ~/.kube/config", s.LocalKubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	ns, _, err := loader.Namespace()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 200, 400 // a user waits, and the hub limits its clients itself
	config.UserAgent = "petrel"
	config.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return untilDone{ctx, rt} })
	config.WarningHandler = rest.NewWarningWriter(s.Err, rest.WarningWriterOptions{Deduplicate: true})
	return open(config, ns)
}

// dialTimeout is how long a hub may take to answer a dial. One that is switched off never answers.
const dialTimeout = 10 * time.Second

// untilDone ends every request when the command ends. Discovery makes requests without our context, and Ctrl-C must
// end them too.
type untilDone struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper. The context outlives this call: the body is read under it.
func (u untilDone) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	context.AfterFunc(u.ctx, func() { cancel(context.Cause(u.ctx)) })
	return u.next.RoundTrip(r.WithContext(ctx))
}

// WrappedRoundTripper lets the machinery of exec and port-forward find the TLS settings below.
func (u untilDone) WrappedRoundTripper() http.RoundTripper { return u.next }

func open(config *rest.Config, namespace string) (*conn, error) {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	disc, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	dyn, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cached := &once.Discovery{DiscoveryInterface: disc}
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
	return &conn{config: config, http: httpClient, namespace: namespace, discovery: cached, mapper: mapper, dynamic: dyn}, nil
}

// clientset returns the typed client, which kubectl's libraries need. It shares the connections of the other clients.
func (c *conn) clientset() (kubernetes.Interface, error) {
	set, err := kubernetes.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return set, nil
}

// raw makes one request and returns the body of a 2xx answer; any other answer becomes the Status error that it carries.
func (c *conn) raw(ctx context.Context, path string, query url.Values, accept string) (io.ReadCloser, error) {
	u := strings.TrimSuffix(c.config.Host, "/") + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" {
		return nil, &apierrors.StatusError{ErrStatus: status}
	}
	return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, strings.TrimSpace(string(body)))
}

func isNotFound(err error) bool { return err != nil && apierrors.IsNotFound(err) }

// statusError reads a Status that came as an event.
func statusError(b []byte) error {
	var s metav1.Status
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("the watch ended with an unreadable error: %w", err)
	}
	return &apierrors.StatusError{ErrStatus: s}
}

// Dynamic returns a client of the cluster, and the namespace of the request, for the verbs that have rooms of their own.
func (c Cluster) Dynamic(ctx context.Context, s *Streams) (dynamic.Interface, string, error) {
	conn, err := c.connect(ctx, s)
	if err != nil {
		return nil, "", err
	}
	return conn.dynamic, conn.namespace, nil
}

// ServerVersion returns the version of the cluster.
func (c Cluster) ServerVersion(ctx context.Context, s *Streams) (string, error) {
	conn, err := c.connect(ctx, s)
	if err != nil {
		return "", err
	}
	v, err := conn.discovery.ServerVersion()
	if err != nil {
		return "", err
	}
	return v.GitVersion, nil
}

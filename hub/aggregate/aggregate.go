// Package aggregate passes requests of an API group on to the API server that an APIService names, with the user in headers, and
// knows what those servers serve.
//
//	/apis/GROUP/VERSION/... ─► APIService VERSION.GROUP ─► its Service (hub/reach) ─► another API server, by TLS
//	                                                         X-Remote-User, X-Remote-Group, X-Remote-Extra-*
//
// The hub authenticates and authorizes before. Whether a server is available, and its discovery document, come from
// hub/control/apiservice, which asks this package to look.
package aggregate

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/weight"
)

// APIService is the kind by name.
var APIService = apiregistrationv1.SchemeGroupVersion.WithKind("APIService")

const (
	// checkTime bounds how long a server may take to show what it serves.
	checkTime = 5 * time.Second
	// maxDiscovery bounds the document, in bytes; kept are its resources only, which may take maxResources.
	maxDiscovery = 1 << 20
	maxResources = 8 << 20
	// maxHeaders bounds the headers of an answer, in bytes.
	maxHeaders = 256 << 10
)

// Config is what an Aggregator needs. All of it is required.
type Config struct {
	Objects control.Reader
	Dialer  interface {
		DialService(ctx context.Context, namespace, name string, port int32) (net.Conn, error)
	}
	Identity *auth.FrontProxy // who the hub is to the servers
	Log      *slog.Logger
}

// Aggregator passes requests on. It is safe for concurrent use.
type Aggregator struct {
	cfg Config

	mu         sync.Mutex
	servers    map[string]*server // by name of the APIService; guarded by mu
	generation uint64             // another number when what is served has changed; guarded by mu
}

// server is what is kept of one APIService.
type server struct {
	spec      string // what the transports were made of
	transport *http.Transport
	upgrades  *http.Transport      // for connections that become something else, which HTTP/2's cannot
	resources []metav1.APIResource // as of the last good look; nil: none yet
	current   bool                 // the last look was good
}

// close ends the connections that nothing uses.
func (s *server) close() {
	s.transport.CloseIdleConnections()
	s.upgrades.CloseIdleConnections()
}

// New returns an Aggregator.
func New(cfg Config) *Aggregator { return &Aggregator{cfg: cfg, servers: map[string]*server{}} }

// Remote returns the APIService whose server serves a group and version; ok is false when the hub itself does, or nobody. The core
// group and the group of APIServices are always the hub's: without them a wrong APIService could not be corrected.
func (a *Aggregator) Remote(gv schema.GroupVersion) (svc *apiregistrationv1.APIService, ok bool) {
	if gv.Group == "" || gv.Group == apiregistrationv1.GroupName {
		return nil, false
	}
	svc, ok = control.Get[*apiregistrationv1.APIService](a.cfg.Objects, APIService, "", gv.Version+"."+gv.Group)
	return svc, ok && svc.Spec.Service != nil
}

// Serve passes one request on as a user's. fail answers with the error's Status; it is called at most once, before anything else
// was answered.
func (a *Aggregator) Serve(w http.ResponseWriter, r *http.Request, user auth.User, svc *apiregistrationv1.APIService, fail func(error)) {
	if !Available(svc) {
		fail(apierrors.NewServiceUnavailable("service unavailable"))
		return
	}
	transport, err := a.transport(svc, r.Header.Get("Upgrade") != "")
	if err != nil {
		fail(apierrors.NewServiceUnavailable("service unavailable: " + err.Error()))
		return
	}
	rp := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			u := *p.In.URL
			u.Scheme, u.Host = "https", hostOf(svc)
			p.Out.URL, p.Out.Host = &u, u.Host
			p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
			p.SetXForwarded()
			p.Out.Header.Del("X-Forwarded-Host")
			p.Out.Header.Del("X-Forwarded-Proto")
			setUser(p.Out.Header, user)
		},
		Transport:      transport,
		FlushInterval:  -1, // a watch's events must not wait for more
		ModifyResponse: noRedirects,
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			var known apierrors.APIStatus
			switch {
			case errors.As(err, &known):
				fail(err)
			case context.Cause(r.Context()) != nil:
				fail(context.Cause(r.Context()))
			default:
				fail(apierrors.NewServiceUnavailable("error trying to reach service: " + err.Error()))
			}
		},
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
	}
	rp.ServeHTTP(w, r)
}

// noRedirects refuses redirects: a client would follow them with its credentials for the hub.
func noRedirects(resp *http.Response) error {
	if resp.StatusCode < 300 || resp.StatusCode > 399 || resp.Header.Get("Location") == "" {
		return nil
	}
	resp.Body.Close()
	const text = "the backend attempted to redirect this request, which is not permitted"
	resp.StatusCode, resp.Status = http.StatusBadGateway, ""
	resp.Header = http.Header{"Content-Type": {"text/plain"}}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return nil
}

// setUser puts the user into headers, and takes away all that the client might have put there itself.
func setUser(h http.Header, user auth.User) {
	auth.DropCredentials(h)
	h.Set("X-Remote-User", user.Name)
	if user.UID != "" {
		h.Set("X-Remote-Uid", user.UID)
	}
	for _, g := range user.Groups {
		h.Add("X-Remote-Group", g)
	}
	for key, values := range user.Extra {
		for _, v := range values {
			h.Add("X-Remote-Extra-"+url.PathEscape(key), v)
		}
	}
}

// Available reports whether the last look at the server was good.
func Available(svc *apiregistrationv1.APIService) bool {
	for _, c := range svc.Status.Conditions {
		if c.Type == apiregistrationv1.Available {
			return c.Status == apiregistrationv1.ConditionTrue
		}
	}
	return false
}

func hostOf(svc *apiregistrationv1.APIService) string {
	return svc.Spec.Service.Name + "." + svc.Spec.Service.Namespace + ".svc:" + strconv.Itoa(int(PortOf(svc)))
}

// PortOf returns the port of an APIService's Service.
func PortOf(svc *apiregistrationv1.APIService) int32 {
	if p := svc.Spec.Service.Port; p != nil {
		return *p
	}
	return 443
}

// transport returns the connections to a server, or those for upgrades; new ones when the APIService has changed.
func (a *Aggregator) transport(svc *apiregistrationv1.APIService, upgrade bool) (*http.Transport, error) {
	spec, err := json.Marshal(svc.Spec)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.servers[svc.Name]
	if s != nil && s.spec == string(spec) {
		return s.of(upgrade), nil
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: svc.Spec.Service.Name + "." + svc.Spec.Service.Namespace + ".svc",
		InsecureSkipVerify:   svc.Spec.InsecureSkipTLSVerify,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.cfg.Identity.Certificate() },
	}
	if len(svc.Spec.CABundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(svc.Spec.CABundle) {
			return nil, errors.New("caBundle holds no certificate")
		}
	}
	namespace, name, port := svc.Spec.Service.Namespace, svc.Spec.Service.Name, PortOf(svc)
	if s != nil {
		s.close()
	}
	s = &server{spec: string(spec), transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return a.cfg.Dialer.DialService(ctx, namespace, name, port)
		},
		TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: maxHeaders,
	}}
	s.upgrades = s.transport.Clone()
	s.upgrades.ForceAttemptHTTP2, s.upgrades.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
	a.servers[svc.Name] = s
	a.generation++
	return s.of(upgrade), nil
}

// of returns the connections for a request.
func (s *server) of(upgrade bool) *http.Transport {
	if upgrade {
		return s.upgrades
	}
	return s.transport
}

// Look asks a server what it serves, and returns why it cannot be used, or nil.
func (a *Aggregator) Look(ctx context.Context, svc *apiregistrationv1.APIService) error {
	resources, err := a.look(ctx, svc)
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.servers[svc.Name]
	if s == nil {
		return err
	}
	if before := s.current; before != (err == nil) || err == nil && !equal(s.resources, resources) {
		a.generation++
	}
	if s.current = err == nil; s.current {
		s.resources = resources
	}
	return err
}

func (a *Aggregator) look(ctx context.Context, svc *apiregistrationv1.APIService) ([]metav1.APIResource, error) {
	transport, err := a.transport(svc, false)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	u := "https://" + hostOf(svc) + "/apis/" + svc.Spec.Group + "/" + svc.Spec.Version
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	setUser(req.Header, auth.User{Name: "system:kube-aggregator", Groups: []string{"system:masters"}})
	resp, err := transport.RoundTrip(req)
	if err != nil {
		transport.CloseIdleConnections()
		return nil, fmt.Errorf("failing or missing response from %s: %w", u, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("failing or missing response from %s: bad status from %s: %d", u, u, resp.StatusCode)
	}
	resources, err := readResources(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("failing or missing response from %s: %w", u, err)
	}
	return resources, nil
}

// readResources reads what a server serves. Two bytes of the document may become a resource of several hundred.
func readResources(body io.Reader) ([]metav1.APIResource, error) {
	text, err := readDocument(body, maxDiscovery)
	if err != nil {
		return nil, err
	}
	var list metav1.APIResourceList
	if n, err := weight.JSON(text, weight.ShapeOf(&list), maxResources); err != nil || n > maxResources {
		return nil, cmp.Or(err, fmt.Errorf("its resources would take more than %d bytes of memory", maxResources))
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	return list.APIResources, nil
}

func equal(a, b []metav1.APIResource) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && string(x) == string(y)
}

// Forget drops what is kept of an APIService that is gone or is the hub's own.
func (a *Aggregator) Forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.servers[name]; s != nil {
		s.close()
		delete(a.servers, name)
		a.generation++
	}
}

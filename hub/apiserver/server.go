package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/version"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/apiserver/discovery"
	"petrel.dev/petrel/hub/apiserver/fairness"
	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/apiserver/podstream"
	"petrel.dev/petrel/hub/apiserver/proxy"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
)

// Config is what a handler needs. Verbs, Kinds, Authenticator and Authorizer are required.
type Config struct {
	Verbs         registry.Verbs
	Kinds         discovery.Kinds
	Authenticator auth.Authenticator
	Authorizer    auth.Authorizer
	Streams       podstream.Streams // nil: pods have no logs, exec, attach, port-forward (503)
	Aggregated    Aggregated        // nil: no API servers behind this one
	Dialer        proxy.Dialer      // nil: pods, Services and nodes have no proxy (503)
	OpenAPI       OpenAPI           // nil: no schemas (404)
	JWKS          func() []byte     // public token keys for /openid/v1/jwks; nil: not served
	Version       version.Info
	Log           *slog.Logger
	// Audit records requests; nil: it is off.
	Audit *audit.Log
	// AgentPanics returns how many panics the agents have contained, by node, for /metrics; nil: it is not known.
	AgentPanics func() map[string]uint64
	// Collectors are metrics of other parts, for /metrics.
	Collectors []prometheus.Collector

	// Ready is what /readyz checks besides "ping" and "shutdown", in this order.
	Ready []Check
	// Closing is closed when the hub begins to stop: watches and streams end, /readyz fails, short requests finish.
	Closing <-chan struct{}
	// Limits bound what clients have of the hub at one time; more is answered with 429.
	Limits Limits
	// Fairness makes requests wait for their turn; nil: they have none, and only Limits hold.
	Fairness *fairness.Gate
	// Known, when not nil, is called with the context of each authenticated request and its user's name: the listener reserves
	// room for such connections.
	Known func(ctx context.Context, user string)
}

// server is the handler's state. All but index, metrics, budgets and refusals, which have locks of their own, is immutable.
type server struct {
	Config
	proxy    *proxy.Server                   // nil: no link to the nodes
	streams  *podstream.Server               // nil: no link to the nodes
	index    atomic.Pointer[discovery.Index] // as of the last request; replaced when the kinds have changed
	codec    *media.Codec
	metrics  *metrics
	inFlight chan struct{} // requests that are being admitted, and short ones until they end
	budgets  *budgets
	open     context.Context // ends when the hub begins to stop
	refusals refusalLog
}

// New returns the API as a handler for a TLS server. The request's context must end when its connection does, as
// net/http's does.
func New(c Config) (http.Handler, error) {
	// A missing Authorizer must not mean that everything is allowed.
	for name, missing := range map[string]bool{"Verbs": c.Verbs == nil, "Kinds": c.Kinds == nil, "Authenticator": c.Authenticator == nil, "Authorizer": c.Authorizer == nil} {
		if missing {
			return nil, fmt.Errorf("API server: its configuration has no %s, and serves nothing without one", name)
		}
	}
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &server{
		Config:   c,
		codec:    media.NewCodec(resource.Scheme()),
		metrics:  newMetrics(c.Version, c.AgentPanics, c.collectors()),
		inFlight: make(chan struct{}, c.Limits.InFlight),
		budgets:  newBudgets(c.Limits),
		open:     openUntil(c.Closing),
	}
	if c.Streams != nil {
		s.streams = podstream.New(podstream.Config{Streams: c.Streams, Status: statusOf, Log: c.Log})
	}
	if c.Dialer != nil {
		s.proxy = proxy.New(proxy.Config{Dialer: c.Dialer, Log: c.Log})
	}
	return s.filters(http.HandlerFunc(s.route)), nil
}

// exchange is one request with what the filters and the router found out about it. It is owned by the request's goroutine.
type exchange struct {
	s    *server
	w    http.ResponseWriter
	r    *http.Request
	ctx  context.Context
	t    resource.Target // zero for paths that are no objects
	sub  *resource.Subresource
	verb string
	user auth.User // of the request, once it is authenticated; without a name before
	held int       // bytes of the body that count against the user
	// classed is set for a request that takes a seat of its priority level, and seat is what it took: nothing any more once a watch
	// has begun.
	classed bool
	seat    fairness.Seat
	// room returns what the decoded body takes of the server's budget; nil: nothing.
	room func()
	// remoteOf is whose server answers the request; nil: this one.
	remoteOf *apiregistrationv1.APIService
	// audit is nil while the request is not recorded.
	audit *audit.Request
	// warning guards the answer's Warning headers: a deletion of many is admitted by many goroutines.
	warning sync.Mutex
	// query is parsed once, because many functions read it.
	query url.Values
}

// requestTimeout bounds a short request, as upstream's.
const requestTimeout = 34 * time.Second

var errClosing = errors.New("the hub is stopping")

var errRevoked = apierrors.NewUnauthorized("the credentials of this request have been revoked")

// untilClosing returns a context that also ends when the hub stops: for watches and streams.
func (s *server) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(s.open, func() { cancel(errClosing) })
	return ctx, func() { unhook(); cancel(nil) }
}

// openUntil is one context for the whole life of the hub, so that a watch needs no goroutine that waits for its end.
func openUntil(closing <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-closing // blocks permanently when it is nil
		cancel()
	}()
	return ctx
}

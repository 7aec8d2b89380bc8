package hub

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/version"

	"petrel.dev/petrel/hub/admission"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/aggregate"
	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/rbac"
	"petrel.dev/petrel/hub/celbound"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/hub/control/tokensecret"
	"petrel.dev/petrel/hub/crd"
	"petrel.dev/petrel/hub/dispatch"
	"petrel.dev/petrel/hub/nodemetrics"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/reach"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/podverbs"
	"petrel.dev/petrel/hub/registry/reviews"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore/sealed"
)

// Hub is one hub. New makes one; Run is called once. All fields are set by New and do not change afterwards: never nil, where not
// said otherwise.
type Hub struct {
	cfg    Config // with its defaults filled in
	log    *slog.Logger
	db     engine                          // set before Run, never nil after
	sealed *sealed.Store                   // over db, when Secrets are encrypted; nil otherwise
	backUp func(ctx context.Context) error // keeps db backed up until ctx ends, by its engine's own means; set with db
	// snapshot writes what db holds to a file and returns its revision; set with db.
	snapshot func(ctx context.Context, path string) (int64, error)
	pki      *auth.PKI
	kinds    *resource.Kinds
	objects  *objects.Cache
	registry *registry.Registry
	crd      *crd.Controller // set with registry
	types    *describedTypes // merge rules for server-side apply; never nil
	// credentials, policy and rights decide about requests, and answer reviews. Set by open, never nil after.
	credentials *auth.Credentials
	policy      auth.Policy
	rights      *rbac.Authorizer // the part of policy that follows the stored roles
	ledger      *quota.Ledger    // of ResourceQuotas: admission reserves in it, a loop shows it
	dispatch    *dispatch.Dispatch
	audit       *audit.Log // nil: off
	// webhooks calls those of users; webhookMetrics count the calls of admission. Set by open, never nil after.
	webhooks       *webhook.Client
	webhookMetrics *admissionwebhook.Metrics
	scheduling     *schedule.Metrics     // set by New, never nil after
	aggregated     *aggregate.Aggregator // set with dispatch, never nil after
	nodeMetrics    *nodemetrics.Verbs    // the registry's verbs, and metrics.k8s.io among them; set with dispatch
	reach          *reach.Dialer         // how the hub connects to pods and Services; set with dispatch
	mqtt           func(net.Conn)        // takes over an agent's connection
	// tokenSecrets is set by open, before its Run and before requests come; never nil after.
	tokenSecrets *tokensecret.Controller
	// busHealth returns why no node can be reached, or nil.
	busHealth func() error
	cluster   jointoken.Cluster
	// published is what the hub publishes of itself: objects that bootstrap keeps exactly like this.
	published []kube.Object
	listener  net.Listener     // owned by New until Run is called, then by the port
	apiLimits apiserver.Limits // zero: the defaults; tests change them before Run
	// storeHealth has one token while a change of the store's health is not yet reported.
	storeHealth chan struct{}
}

// New opens everything that a hub needs and fails with nothing changed: the data directory, the store, the keys and the
// port. After it the port is bound, and Run answers on it.
func New(ctx context.Context, cfg Config) (*Hub, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	celbound.Install() // while nothing compiles expressions yet
	// The port first: a second hub on one machine fails here, before it looks at the first one's data.
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another --listen, or stop what uses that port", cfg.Listen, err)
	}
	h := &Hub{cfg: cfg, log: cfg.Log, listener: listener, storeHealth: make(chan struct{}, 1), types: &describedTypes{log: cfg.Log}, scheduling: schedule.NewMetrics()}
	if err := h.open(ctx); err != nil {
		listener.Close()
		return nil, err
	}
	return h, nil
}

func (h *Hub) open(ctx context.Context) error {
	dir := h.cfg.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w; choose another --data-dir, or run as a user who may write there", err)
	}
	var err error
	if h.audit, err = audit.Open(h.cfg.Audit, h.part("audit")); err != nil {
		return err
	}
	h.kinds = builtin.New()
	if err := h.openStore(ctx); err != nil {
		return err
	}
	hosts := append([]string{h.cfg.apiAddr().String()}, h.cfg.Advertise...)
	if h.pki, err = auth.LoadPKI(filepath.Join(dir, "pki"), hosts...); err != nil {
		return err
	}
	h.pki.LogTo(h.part("pki"))
	if err := h.kinds.Compute(kube.ComponentStatus, h.components); err != nil {
		return err
	}
	if err := podverbs.Install(h.kinds, h.pki.Tokens()); err != nil {
		return err
	}
	if err := h.pki.WriteKubeconfig(h.Kubeconfig(), h.URL()); err != nil {
		return err
	}
	h.objects = objects.New(objects.Config{Store: h.db, Kinds: h.kinds, Log: h.part("objects")})
	h.credentials = auth.NewAuthenticator(h.pki, h.objects)
	if err := h.openAccess(); err != nil {
		return err
	}
	if err := reviews.Install(h.kinds, h.credentials, h.policy); err != nil {
		return err
	}
	configured, err := h.dynamicAdmission()
	if err != nil {
		return err
	}
	h.ledger = quota.NewLedger(h.objects, h.kinds.OfResource)
	chain, err := admission.New(admission.Config{
		Objects: h.objects, ServiceCIDR: h.cfg.ServiceCIDR, ClusterCIDR: h.cfg.ClusterCIDR,
		Authorizer: h.policy, Rights: h.rights, Dynamic: configured, Ledger: h.ledger, Log: h.part("admission"),
	})
	if err != nil {
		return err
	}
	store, err := h.overlayStore()
	if err != nil {
		return err
	}
	h.registry = registry.New(registry.Config{
		Store: store, ReadOnly: store.ReadOnly, Kinds: h.kinds, Objects: h.objects, Admission: chain, Limits: h.limits(), Types: h.types,
		Log: h.part("registry"),
	})
	h.openCustomKinds()
	h.openTokenSecrets()
	if err := h.openBearers(); err != nil {
		return err
	}
	return h.openLink()
}

// limits returns the limits of each kind. They keep a typing error in a number of replicas, or a join token that leaked, from filling
// the hub's memory.
func (h *Hub) limits() map[kube.GVK]registry.Limit {
	return map[kube.GVK]registry.Limit{
		kube.Pod:  {Max: h.cfg.MaxPods, Advice: "delete pods, scale workloads down, or raise petrel hub --max-pods"},
		kube.Node: {Max: h.cfg.MaxNodes, Advice: "delete those that are no more, end join tokens that others have (petrel token delete), or raise petrel hub --max-nodes"},
	}
}

// part returns the log of one part of the hub.
func (h *Hub) part(name string) *slog.Logger { return h.log.With("part", name) }

// Kubeconfig returns the path of the file with the administrator's credentials.
func (h *Hub) Kubeconfig() string { return filepath.Join(h.cfg.DataDir, "admin.kubeconfig") }

// URL returns where the API is reached.
func (h *Hub) URL() string {
	return "https://" + net.JoinHostPort(h.host(), h.portNumber())
}

// host returns the name or address under which the administrator's kubeconfig, a file of this machine, reaches the hub.
func (h *Hub) host() string {
	hosts := h.hosts()
	if len(h.cfg.Advertise) > 0 {
		return hosts[0]
	}
	return hosts[len(hosts)-1]
}

func (h *Hub) portNumber() string {
	_, p, _ := net.SplitHostPort(h.listener.Addr().String())
	return p
}

// Run serves until ctx ends. Parts stop in the reverse order of their dependence: first the port, then the loops, the
// registry, and the store last. The store is closed, so that its write-ahead log is copied back and its history's mark is up to date.
func (h *Hub) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { h.cfg.Notify.Stopping(h.log) })()
	err := h.layers(ctx,
		h.db.Run,
		h.registry.Run,
		h.loops,
		h.serve,
	)
	return errors.Join(err, h.db.Close())
}

// layers runs each function in a context that ends only after those behind it have returned. When one fails, all end.
func (h *Hub) layers(ctx context.Context, run ...func(context.Context) error) error {
	if len(run) == 0 {
		<-ctx.Done()
		return nil
	}
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- run[0](own) }()
	inner, stopInner := context.WithCancel(ctx)
	defer stopInner()
	rest := make(chan error, 1)
	go func() { rest <- h.layers(inner, run[1:]...) }()
	select {
	case err := <-rest:
		stop()
		return errors.Join(err, ended(<-done))
	case err := <-done:
		stopInner()
		return errors.Join(ended(err), <-rest)
	}
}

// ended returns nil for an error that only means that a part was asked to stop.
func ended(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// serve serves the API and the links on the port until ctx ends.
func (h *Hub) serve(ctx context.Context) error {
	closing := make(chan struct{})
	handler, err := apiserver.New(apiserver.Config{
		Verbs:         h.nodeMetrics,
		Kinds:         h.kinds,
		Authenticator: h.credentials,
		Authorizer:    h.policy,
		Audit:         h.audit,
		Streams:       h.dispatch,
		Aggregated:    h.aggregated,
		Dialer:        h.reach,
		AgentPanics:   h.dispatch.AgentPanics,
		Collectors:    []prometheus.Collector{h.webhookMetrics, h.scheduling, h.audit},
		Fairness:      h.fairness(),
		Limits:        h.apiLimits,
		OpenAPI:       h.documents(),
		JWKS:          h.pki.Tokens().JWKS,
		Version:       h.version(),
		Log:           h.part("api"),
		Closing:       closing,
		Ready:         h.checks(),
		Known:         knowGuest,
	})
	if err != nil {
		return err
	}
	p := newPort(h.listener, h.pki.ServerTLS(), h.mqtt, h.log)
	srv := newServer(handler, h.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(p.Run(ctx)) })
	g.Go(func() error { return ended(srv.Serve(p)) })
	g.Go(func() error {
		<-ctx.Done()
		close(closing)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			srv.Close()
		}
		return nil
	})
	h.log.Info("hub is up", "url", h.URL(), "data", h.cfg.DataDir, "version", buildinfo.GitVersion())
	h.cfg.Notify.Ready(h.log)
	return g.Wait()
}

// newServer returns an HTTP server whose connections have bounds: all that is bounded here can be used without credentials.
func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100, // as Kubernetes' own
			MaxReadFrameSize:              64 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
			WriteByteTimeout:              30 * time.Second,
		},
		ConnContext: connContext,
		ErrorLog:    stdlog.New(debugWriter{log}, "", 0),
	}
}

func (h *Hub) version() version.Info {
	b := buildinfo.Get()
	return version.Info{
		Major: "1", Minor: "36", GitVersion: buildinfo.GitVersion(), GitCommit: b.Commit, GitTreeState: "clean",
		GoVersion: b.Go, Compiler: "gc", Platform: b.Platform,
	}
}

// debugWriter logs what net/http reports about clients that break the protocol.
type debugWriter struct{ log *slog.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug("http", "message", string(p))
	return len(p), nil
}

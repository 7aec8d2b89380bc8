// Package nodeapi is what a node serves of itself over HTTP: the part of kubelet's API that users and dashboards read, with the same
// paths and forms. It has no port: a request comes as a stream of the link, after the hub has decided who may have it (nodes/proxy).
//
//	/healthz  /pods  /stats/summary  /metrics  /metrics/resource  /metrics/cadvisor  /logs/  /pulls
//
// Nothing here runs commands or changes anything; those ways lead through the hub's own API.
package nodeapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cgroupstat"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/streamconn"
	"petrel.dev/petrel/internal/wire"
)

// Config is what a Server needs. All of it is required.
type Config struct {
	NodeName string
	// Pods returns the pods of the node with their last status, shared: read-only.
	Pods func() []*corev1.Pod
	// Cgroup returns the cgroup of a container, or with id "" of a whole pod.
	Cgroup func(podUID, id string) string
	// Panics returns how many panics the agent has contained.
	Panics func() uint64
	// LogDir is what /logs/ shows.
	LogDir string
	// Pulls returns how far the images are that are being pulled.
	Pulls func(ctx context.Context) ([]cruntime.PullProgress, error)
	Usage cgroupstat.Reader
	Log   *slog.Logger
}

// Server serves the node's API. It is safe for concurrent use.
type Server struct {
	cfg     Config
	sampler sampler
	handler http.Handler
}

// New returns a server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.sampler.read = s.readAll
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /metrics", s.ownMetrics)
	mux.HandleFunc("GET /metrics/resource", s.resourceMetrics)
	mux.HandleFunc("GET /metrics/cadvisor", s.containerMetrics)
	mux.HandleFunc("GET /logs/", s.logs)
	mux.HandleFunc("GET "+kube.PullsPath, s.pulls)
	s.handler = mux
	return s
}

// Serve serves the requests of one stream, and closes it.
func (s *Server) Serve(ctx context.Context, st wire.Stream) {
	err := contain.Do(s.cfg.Log, "nodeapi", s.cfg.NodeName, func() error {
		if err := st.CloseSend(ctx, wire.ChannelStderr); err != nil { // the connection stands
			return err
		}
		conn := &closing{Conn: streamconn.Accepted(st, "hub"), closed: make(chan struct{})}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		srv := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
			MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
		return srv.Serve(&single{conn: conn})
	})
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Debug("stream of the node's API ended", "error", err)
	}
	_ = st.Close(wire.StreamEnd{})
}

// closing is a connection that shows when it is closed.
type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// Close implements net.Conn.
func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// single is a listener with one connection. It ends with that.
type single struct {
	conn  *closing
	taken bool // by the one goroutine that accepts
}

// Accept implements net.Listener.
func (l *single) Accept() (net.Conn, error) {
	if !l.taken {
		l.taken = true
		return l.conn, nil
	}
	<-l.conn.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *single) Close() error { return nil }

// Addr implements net.Listener.
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// pods answers with the pods of this node as the agent has them.
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range s.cfg.Pods() {
		list.Items = append(list.Items, *p)
	}
	writeJSON(w, list)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the hub has gone
}

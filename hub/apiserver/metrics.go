package apiserver

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/version"

	"petrel.dev/petrel/internal/contain"
)

// metrics are few because every series costs memory on a small board. Names are upstream's, so dashboards work.
type metrics struct {
	http.Handler
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  prometheus.Gauge
	rejected prometheus.Counter
}

func newMetrics(v version.Info, agents func() map[string]uint64, others []prometheus.Collector) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests, by verb, resource and HTTP code.",
		}, []string{"verb", "group", "resource", "subresource", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long short requests took, by verb.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 60},
		}, []string{"verb"}),
		watches:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "apiserver_longrunning_requests", Help: "Open watches and streams."}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{Name: "apiserver_rejected_requests_total", Help: "Requests refused because too many were in flight."}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubernetes_build_info", Help: "1, labelled with the version.",
		ConstLabels: prometheus.Labels{"git_version": v.GitVersion, "major": v.Major, "minor": v.Minor},
	})
	info.Set(1)
	reg := prometheus.NewRegistry()
	reg.MustRegister(containedPanics{agents}, m.requests, m.duration, m.watches, m.rejected, info,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	reg.MustRegister(others...)
	m.Handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return m
}

var containedDesc = prometheus.NewDesc("petrel_contained_panics_total",
	"Panics that were kept at one object, node, connection or request, by part of the program. Each is a fault of Petrel.", []string{"site"}, nil)

var agentPanicsDesc = prometheus.NewDesc("petrel_agent_panics_total",
	"Panics that a node's agent has contained since it started, by node. Its log has the stacks.", []string{"node"}, nil)

// containedPanics reports what internal/contain has counted here and on the nodes, at each collection.
type containedPanics struct {
	agents func() map[string]uint64 // nil: it is not known
}

// Describe implements prometheus.Collector.
func (containedPanics) Describe(ch chan<- *prometheus.Desc) {
	ch <- containedDesc
	ch <- agentPanicsDesc
}

// Collect implements prometheus.Collector. It reads the counters only now, so that they cost nothing in between.
func (c containedPanics) Collect(ch chan<- prometheus.Metric) {
	if c.agents != nil {
		for node, n := range c.agents() {
			ch <- prometheus.MustNewConstMetric(agentPanicsDesc, prometheus.CounterValue, float64(n), node)
		}
	}
	for site, n := range contain.Counts() {
		ch <- prometheus.MustNewConstMetric(containedDesc, prometheus.CounterValue, float64(n), site)
	}
}

// observe counts a finished request.
func (m *metrics) observe(x *exchange, code int, took time.Duration) {
	var group, plural, sub string
	if k := x.t.Kind; k != nil {
		group, plural, sub = k.GVK.Group, k.Plural, x.t.Subresource
	}
	m.requests.WithLabelValues(x.verb, group, plural, sub, strconv.Itoa(code)).Inc()
	if !x.longRunning() {
		m.duration.WithLabelValues(x.verb).Observe(took.Seconds())
	}
}

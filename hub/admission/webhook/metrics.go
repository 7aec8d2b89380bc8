package webhook

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/admission/match"
)

// Metrics count calls of webhooks, under upstream's names. It is a prometheus.Collector.
type Metrics struct {
	requests   *prometheus.CounterVec
	rejections *prometheus.CounterVec
	failedOpen *prometheus.CounterVec
	duration   *prometheus.HistogramVec
}

// NewMetrics returns metrics that have no series yet.
func NewMetrics() *Metrics {
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_admission_webhook_request_total", Help: "Calls of admission webhooks, by name, type, operation, HTTP code and whether the write was refused.",
		}, []string{"name", "type", "operation", "code", "rejected"}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_admission_webhook_rejection_count", Help: "Writes that an admission webhook, or its failure, refused.",
		}, []string{"name", "type", "operation", "error_type", "rejection_code"}),
		failedOpen: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_admission_webhook_fail_open_count", Help: "Failures of admission webhooks that were ignored, as their policy says.",
		}, []string{"name", "type"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_admission_webhook_admission_duration_seconds", Help: "How long admission webhooks took.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25},
		}, []string{"name", "type", "operation", "rejected"}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.rejections, m.failedOpen, m.duration}
}

// observe counts an answer: err is the refusal, nil for none.
func (m *Metrics) observe(h *hook, w *match.Write, took time.Duration, err error) {
	code := 200
	if err != nil {
		kind := "no_error"
		code = 0
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			code = int(status.Status().Code)
		} else {
			kind = "apiserver_internal_error"
		}
		m.rejections.WithLabelValues(h.name, h.kind, string(w.GetOperation()), kind, label(code)).Inc()
	}
	m.call(h, w, took, code, err != nil)
}

// failed counts a failure.
func (m *Metrics) failed(h *hook, w *match.Write, took time.Duration, f *failedCall, ignored bool) {
	if ignored {
		m.failedOpen.WithLabelValues(h.name, h.kind).Inc()
	} else {
		m.rejections.WithLabelValues(h.name, h.kind, string(w.GetOperation()), "calling_webhook_error", label(int(f.code))).Inc()
	}
	m.call(h, w, took, int(f.code), !ignored)
}

func (m *Metrics) call(h *hook, w *match.Write, took time.Duration, code int, rejected bool) {
	op := string(w.GetOperation())
	m.requests.WithLabelValues(h.name, h.kind, op, label(code), strconv.FormatBool(rejected)).Inc()
	m.duration.WithLabelValues(h.name, h.kind, op, strconv.FormatBool(rejected)).Observe(took.Seconds())
}

// label returns an HTTP code as a label. Webhooks choose codes; so that they cannot make series without end, all beyond 600 are one.
func label(code int) string { return strconv.Itoa(min(max(code, 0), 600)) }

package schedule

import (
	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"
)

// Metrics count what the scheduler does, under upstream's names. It is a prometheus.Collector.
type Metrics struct {
	waiting     *prometheus.GaugeVec
	attempts    *prometheus.CounterVec
	preemptions prometheus.Counter
	victims     prometheus.Histogram

	active, backoff, unschedulable, gated prometheus.Gauge   // of waiting
	scheduled, refused, failed            prometheus.Counter // of attempts
}

// NewMetrics returns metrics of a scheduler that has done nothing yet.
func NewMetrics() *Metrics {
	m := &Metrics{
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "scheduler_pending_pods", Help: "Pods without a node: about to be tried (active), not before a time (backoff), waiting for a change (unschedulable), with scheduling gates (gated).",
		}, []string{"queue"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scheduler_schedule_attempts_total", Help: "Attempts to place a pod, by result: scheduled, unschedulable, error.",
		}, []string{"profile", "result"}),
		preemptions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scheduler_preemption_attempts_total", Help: "Attempts to make room for a pod by evicting others.",
		}),
		victims: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_preemption_victims", Help: "Pods that one preemption evicts.", Buckets: prometheus.ExponentialBuckets(1, 2, 7),
		}),
	}
	queue, result := m.waiting.WithLabelValues, func(r string) prometheus.Counter {
		return m.attempts.WithLabelValues(corev1.DefaultSchedulerName, r)
	}
	m.active, m.backoff, m.unschedulable, m.gated = queue("active"), queue("backoff"), queue("unschedulable"), queue("gated")
	m.scheduled, m.refused, m.failed = result("scheduled"), result("unschedulable"), result("error")
	return m
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
	return []prometheus.Collector{m.waiting, m.attempts, m.preemptions, m.victims}
}

// pending sets how many pods wait where.
func (m *Metrics) pending(q *queue, gated int) {
	m.active.Set(float64(q.count[ready]))
	m.backoff.Set(float64(q.count[later]))
	m.unschedulable.Set(float64(q.count[parked]))
	m.gated.Set(float64(gated))
}

// attempt counts what became of one pod in a round.
func (m *Metrics) attempt(o *outcome) {
	switch {
	case o.failed:
		m.failed.Inc()
	case o.decision.Fits():
		m.scheduled.Inc()
	default:
		m.refused.Inc()
	}
}

// preempted counts one preemption with its victims.
func (m *Metrics) preempted(victims int) { m.victims.Observe(float64(victims)) }

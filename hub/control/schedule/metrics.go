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
}

// NewMetrics returns metrics of a scheduler that has done nothing yet.
func NewMetrics() *Metrics {
	return &Metrics{
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
	for name, n := range map[string]int{
		"active": q.count[ready], "backoff": q.count[later], "unschedulable": q.count[parked], "gated": gated,
	} {
		m.waiting.WithLabelValues(name).Set(float64(n))
	}
}

// attempt counts what became of one pod in a round.
func (m *Metrics) attempt(o *outcome) {
	result := "unschedulable"
	switch {
	case o.failed:
		result = "error"
	case o.decision.Fits():
		result = "scheduled"
	}
	m.attempts.WithLabelValues(corev1.DefaultSchedulerName, result).Inc()
}

// preempted counts one preemption with its victims.
func (m *Metrics) preempted(victims int) { m.victims.Observe(float64(victims)) }

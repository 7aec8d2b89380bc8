package fairness

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// tallyKey names what is counted together.
type tallyKey struct{ level, schema string }

// tally counts the requests of a FlowSchema. All but dispatched is guarded by Gate.mu.
type tally struct {
	dispatched         atomic.Uint64 // all that were let in, exempt ones too
	executing, waiting int           // of levels that are limited
	rejected           [len(reasons)]uint64
}

// Why a request is refused: indexes of reasons.
const (
	concurrencyLimit = iota
	queueFull
	timeOut
	cancelled
)

// reasons have upstream's names.
var reasons = [...]string{"concurrency-limit", "queue-full", "time-out", "cancelled"}

// tally returns the counters of a FlowSchema in a level. g.mu is held.
func (g *Gate) tally(level, schema string) *tally {
	k := tallyKey{level, schema}
	t := g.tallies[k]
	if t == nil {
		t = &tally{}
		g.tallies[k] = t
	}
	return t
}

// forget drops the counters of what no request can be any more. g.mu is held.
func (g *Gate) forget(now *schedule) {
	known := make(map[*tally]bool, len(now.schemas))
	for _, s := range now.schemas {
		known[s.tally] = true
	}
	for k, t := range g.tallies {
		if !known[t] && t.executing == 0 && t.waiting == 0 {
			delete(g.tallies, k)
		}
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("apiserver_flowcontrol_"+name, help, labels, nil)
}

// Names and labels are upstream's, so dashboards work.
var (
	nominalDesc    = desc("nominal_limit_seats", "Seats that a priority level has by its shares.", "priority_level")
	lowerDesc      = desc("lower_limit_seats", "Seats that a priority level always has.", "priority_level")
	upperDesc      = desc("upper_limit_seats", "Seats that a priority level can have with those that it borrows.", "priority_level")
	seatsDesc      = desc("current_executing_seats", "Seats in use.", "priority_level")
	executingDesc  = desc("current_executing_requests", "Requests that have a seat.", "priority_level", "flow_schema")
	waitingDesc    = desc("current_inqueue_requests", "Requests that wait for a seat.", "priority_level", "flow_schema")
	dispatchedDesc = desc("dispatched_requests_total", "Requests that were let in.", "priority_level", "flow_schema")
	rejectedDesc   = desc("rejected_requests_total", "Requests that were refused, by reason.", "priority_level", "flow_schema", "reason")
)

// Describe implements prometheus.Collector.
func (g *Gate) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nominalDesc, lowerDesc, upperDesc, seatsDesc, executingDesc, waitingDesc, dispatchedDesc, rejectedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *Gate) Collect(ch chan<- prometheus.Metric) {
	g.schedule() // levels as they are now, also when no request has come since they changed
	var out []prometheus.Metric
	add := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, t, v, labels...))
	}
	g.mu.Lock()
	for name, l := range g.levels {
		add(nominalDesc, prometheus.GaugeValue, float64(l.nominal), name)
		add(lowerDesc, prometheus.GaugeValue, float64(l.guaranteed), name)
		add(upperDesc, prometheus.GaugeValue, float64(l.most), name)
		add(seatsDesc, prometheus.GaugeValue, float64(l.used), name)
	}
	for k, t := range g.tallies {
		add(executingDesc, prometheus.GaugeValue, float64(t.executing), k.level, k.schema)
		add(waitingDesc, prometheus.GaugeValue, float64(t.waiting), k.level, k.schema)
		add(dispatchedDesc, prometheus.CounterValue, float64(t.dispatched.Load()), k.level, k.schema)
		for i, n := range t.rejected {
			if n > 0 {
				add(rejectedDesc, prometheus.CounterValue, float64(n), k.level, k.schema, reasons[i])
			}
		}
	}
	g.mu.Unlock()
	for _, m := range out { // the receiver may be slow
		ch <- m
	}
}

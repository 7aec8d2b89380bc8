package audit

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
)

// counts are what metrics show, under upstream's names.
type counts struct {
	events  atomic.Uint64 // that were made, dropped ones included
	dropped atomic.Uint64 // that are not in the file
	// levels are requests by the level that the policy has for them.
	none, metadata, request, response atomic.Uint64
}

// level returns the counter of a level.
func (c *counts) level(l auditinternal.Level) *atomic.Uint64 {
	switch l {
	case auditinternal.LevelMetadata:
		return &c.metadata
	case auditinternal.LevelRequest:
		return &c.request
	case auditinternal.LevelRequestResponse:
		return &c.response
	}
	return &c.none
}

var (
	eventsDesc = prometheus.NewDesc("apiserver_audit_event_total", "Audit events that were made.", nil, nil)
	errorsDesc = prometheus.NewDesc("apiserver_audit_error_total",
		"Audit events that were dropped, since they came faster than they could be written, or the disk was full.", []string{"plugin"}, nil)
	levelsDesc = prometheus.NewDesc("apiserver_audit_level_total", "Requests, by the level that the audit policy has for them.", []string{"level"}, nil)
)

// Describe implements prometheus.Collector.
func (l *Log) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{eventsDesc, errorsDesc, levelsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A nil Log counts nothing.
func (l *Log) Collect(ch chan<- prometheus.Metric) {
	if l == nil {
		ch <- prometheus.MustNewConstMetric(eventsDesc, prometheus.CounterValue, 0)
		return
	}
	c := &l.sink.counts
	ch <- prometheus.MustNewConstMetric(eventsDesc, prometheus.CounterValue, float64(c.events.Load()))
	ch <- prometheus.MustNewConstMetric(errorsDesc, prometheus.CounterValue, float64(c.dropped.Load()), "log")
	for _, level := range []auditinternal.Level{auditinternal.LevelNone, auditinternal.LevelMetadata, auditinternal.LevelRequest, auditinternal.LevelRequestResponse} {
		ch <- prometheus.MustNewConstMetric(levelsDesc, prometheus.CounterValue, float64(c.level(level).Load()), string(level))
	}
}

// Package horizontalpodautoscaler keeps the replicas of what HorizontalPodAutoscalers target at what their metrics ask for.
//
//	every period ─► scale of the target ─► readings: agents, custom.metrics.k8s.io, external.metrics.k8s.io
//	                                          │
//	              decide(object, scale, pods, readings, history, now) ─► replicas, conditions, warnings
//	                                          │
//	              the scale subresource  ◄────┴────►  status, Events
//
// The pure part (decide and what it calls) has no clock and no I/O; the Controller reads before it and writes after it. Only an
// autoscaler that exists and whose target has replicas makes the hub ask anything, and only of the nodes that run its pods. What was
// recommended and done lately is kept in memory: after a start of the hub, the stabilization windows begin with the present size.
package horizontalpodautoscaler

// Package storage decides what a node does about its disk: when images are collected and which, when pods are evicted
// and which, and when a pod has used more than its own limits allow.
//
//	Space ──► Policy ──► how much to collect ──► PickImages
//	                └──► pressure ──► Rank ──► the pod to evict
//	Usage of one pod ──► Check ──► why it is evicted
//
// The decisions are pure functions of plain data. What they need of the machine is measured by Look (a file system) and
// Walk (a directory that a container may have shaped in any way). The thresholds and the messages are kubelet's; see
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/ and
// https://kubernetes.io/docs/concepts/architecture/garbage-collection/.
package storage

// Package cache is what a node knows when its hub is out of reach: the desired set as last received, the cluster's
// settings, and the reports that the hub has not confirmed yet. It survives a pulled plug at any moment.
//
//	DATA/agent/cache/desired.log   the desired set: groups of puts, deletes and differences, each closed by a commit
//	DATA/agent/cache/reports.log   reports not yet confirmed, written a moment later, so that a connected node writes none
//
// A batch of the hub is on disk (one fsync) before Apply returns. A damaged record is skipped and logged; the others are
// kept, and because the set's hash no longer matches, the hub sends what is missing at the next contact. Damage never
// empties the set. An idle cache writes nothing.
package cache

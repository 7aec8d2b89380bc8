// Package overlay shows objects that are not stored among those that are: a sqlstore.Store over a sqlstore.Store. What is
// built on it (hub/registry) does not know which objects are which.
//
// A synthesized object is made from a stored one, its source, whenever it is asked for. A node's Lease is one: it says when
// the node was last seen, which is not worth a write. The keys of such objects form a range that mirrors the sources'
// range, name by name:
//
//	shown       /coordination.k8s.io/leases/default/leader
//	            /coordination.k8s.io/leases/kube-node-lease/a     ◄── Build ── /core/nodes/a     stored
//	            /coordination.k8s.io/leases/kube-node-lease/b     ◄── Build ── /core/nodes/b
//	            /coordination.k8s.io/leases/lab/leader
//
// The revision of a synthesized object is that of its source. So lists are exact as of one revision, chunks and counts
// included, and a watch follows the source: the object appears, changes and goes when that does. What else changes in it is
// no event. Nobody can write it, and what may be stored in its range is hidden.
//
// Ranges of keys without synthesized objects cost the comparison of a few prefixes.
//
// To add a kind of synthesized objects, declare it in hub/resource like any other and give New its Synthetic. Objects
// without a source that is stored are not for this package.
package overlay

// Package overlay shows synthesized objects among stored ones: it is a sqlstore.Store over a sqlstore.Store. Its users
// (hub/registry) do not know which objects are which.
//
// A synthesized object is made from a stored one, its source, at each read. A node's Lease is one: it has the time when
// the node was last seen, which is not worth a write. The keys of such objects form a range that mirrors the sources'
// range, name by name:
//
//	shown       /coordination.k8s.io/leases/default/leader
//	            /coordination.k8s.io/leases/kube-node-lease/a     ◄── Build ── /core/nodes/a     stored
//	            /coordination.k8s.io/leases/kube-node-lease/b     ◄── Build ── /core/nodes/b
//	            /coordination.k8s.io/leases/lab/leader
//
// The revision of a synthesized object is that of its source. So lists are exact as of one revision, chunks and counts
// included, and a watch follows the source: the object appears, changes and goes when that does. Other changes of it are
// no events. It cannot be written, and whatever is stored in its range is hidden.
//
// Ranges of keys without synthesized objects cost the comparison of a few prefixes.
//
// To add a kind of synthesized objects, declare it in hub/resource like any other and give New its Synthetic. Objects
// without a source that is stored are not for this package.
package overlay

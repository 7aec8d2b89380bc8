// Package desired computes what each node should have: what is bound to it, what its pods refer to, and what all nodes
// share. It is pure: changes of the API's objects come in, puts and removals go out, and the time is a parameter. It starts
// no goroutine, reads no clock and sends nothing; hub/dispatch drives it and passes its output to the nodes' senders.
//
//	Change, Share ───────────────┐                      ┌─► Put, Remove, Hide   of one node's set
//	Open, Have, Close ───────────┼──► table of Sources ─┤
//	Release, Cancel, Expire ─────┘                      └─► Share, Unshare      of what all nodes get
//
// What is synced is the table, see Table: a new kind is one more entry, which names the kind, the nodes that need an object
// of it, and how it is trimmed. Sets of nodes without a session are not kept: Open composes them.
//
// The package is tested by text scripts (testdata), which show for each change what goes out.
package desired

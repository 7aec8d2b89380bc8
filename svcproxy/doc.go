// Package svcproxy makes Services work on one node: it accepts what is sent to a ClusterIP, node port, load balancer or
// host port and carries it to an endpoint, and it is the cluster's DNS. It runs in the agent's process, needs no packet
// filter rules, and knows nothing of Kubernetes but the small types of table.go.
//
//	Apply(Table) ──► plan (pure: which listeners, which endpoints behind each)
//	                   │ difference to what is open
//	                   ▼
//	   TCP listener ── accept ─► choose ─► dial, next on failure ─► two kernel splices
//	   UDP socket   ── datagram ─► flow of its client, or choose ─► one connected socket a flow
//	   health check port: answered here, with the number of endpoints on this node
//	   DNS          ── cluster names from the same table; the rest from cache or upstream
//
// The service network must be local to the node (AnyIP: `ip route add local 10.43.0.0/16 dev lo`; package podnet does
// it), so that packets to a ClusterIP end at a socket here.
//
// What a change of the table does to traffic in flight: a TCP connection stays until one of its ends closes it, also when
// its endpoint left the Service; a UDP flow to an endpoint that left is cut, and its next datagram goes to another one;
// a Service that is gone, or has no endpoint at all, refuses at once, as a closed port does.
//
// The proxy is in the middle of connections, so a server sees the node's address as its client, and restarting the
// agent cuts connections to Services (not those between pods).
package svcproxy

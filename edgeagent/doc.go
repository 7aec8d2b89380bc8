// Package edgeagent is the agent of an edge node: it makes what the hub wants of the node true, and keeps it so when
// the hub is out of reach.
//
//	hub ══ link ═► cache ─► podrun ─► ctrd, podnet, volume, probe
//	         ▲       │ └──► svcproxy (Services, DNS, host ports)
//	         └───────┴◄──── status of pods and node
//
// Agent only connects them: the cache keeps what is wanted, podrun owns the pods, podnet and svcproxy the network, node the
// machine, link the connection. Each runs by itself; none waits for the link. Pods, network and proxy need the cluster's
// networks: together they are the data plane, which is nil or whole (dataplane.go). apply.go hands the desired set to it.
package edgeagent

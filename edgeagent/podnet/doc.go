// Package podnet is the pod network of one node: a bridge, a pinned network namespace for each pod, addresses out of the
// node's podCIDR, and routes to the pods of other nodes. It talks netlink and nftables itself; there is no CNI binary, no
// iptables and no daemon.
//
//	   pod netns (StateDir/netns/<uid>)                node's own netns
//	┌──────────────────────────────────┐
//	│ eth0 10.42.3.17/24               │ veth   ┌──────────────────────┐   route 10.42.7.0/24 via 192.168.1.7 (same LAN)
//	│ default via 10.42.3.1        ────┼────────┤ petrel0 10.42.3.1/24 ├── or through petrel0.vx (VXLAN) otherwise
//	└──────────────────────────────────┘        └──────────────────────┘   masquerade towards everything else
//	                                            local 10.43.0.0/16 dev lo  (service addresses end here, at svcproxy)
//
// Rules that hold everything together:
//
//   - Every call compares what should be with what the kernel has and repairs the difference. A call after kill -9, after
//     a reboot or a second call in a row is the same call.
//   - A Network belongs to the network namespace of the thread that called New. All work in it and in pods' namespaces
//     goes through sockets that were opened there; a thread that has to enter another namespace never comes back to Go's
//     scheduler.
//   - What is on disk is small and may be lost: StateDir/ipam/<address> names the pod that owns an address. Pods prefer an
//     address computed from their UID, so even a lost record gives the same address when that is still free.
package podnet

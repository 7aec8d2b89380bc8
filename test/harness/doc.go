// Package harness gives tests machines, processes and clusters of the finished binary: network namespaces on one switch,
// real hubs and agents with real containers, the real kubectl, Mosquitto. A package that uses it calls Main from its
// TestMain. Everything that it makes is removed when the test that asked for it ends.
//
//	ms := harness.LAN(t, "name", 2)       // two machines on a switch
//	h := harness.StartHub(t, ms[0])       // petrel hub on the first
//	a := h.Join(ms[1], "node")            // petrel agent on the second, once its node is ready
//	h.Apply(manifest); h.Running("pod")   // kubectl
//
// They need root, containerd, runc, ip and nsenter; without them the tests are skipped, or fail where CI is "true".
package harness

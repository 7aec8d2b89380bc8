// Package hollow runs fleets of simulated nodes against one real hub process: the agent's own link, identity and cache,
// on the real protocol, without containers. What a node would run, it only says that it runs.
//
//	test process                                     hub process (the built binary)
//	 node 1..N: cache ◄─ link ═══ MQTT/TLS ═══════►  broker, dispatch, controllers, API, store
//	 client-go: pods, Services, watch ────HTTPS────►
//
// TestSmallFleet is part of `make test` and holds a memory budget. TestLargeFleet runs with PETREL_BENCH set (`make bench`
// does) and only reports; docs/performance.md has its figures.
package hollow

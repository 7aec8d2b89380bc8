// Package operators proves the API with clients and operators of the field, unmodified, at the versions that this module names: helm 3
// and 4, an operator on controller-runtime, Prometheus' scrape and parser, and published operators. They run as plain processes, or
// within the test, against the hub of the finished binary. No node runs; a stand-in reports the status of pods where a client waits for
// it. This is a module of its own, so that Petrel's has none of their dependencies; go.mod holds those that both have at Petrel's
// versions, so that their packages are compiled once. Published operators that need other versions have modules of their own below.
//
//	make test        runs all but the published operators: go test -short
//	make operators   runs everything
package operators

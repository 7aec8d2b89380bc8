// Package programs holds the programs that an agent runs containers with, and are no part of its own process: containerd, the
// shim that serves a pod's containers, and the OCI runtime.
//
//	build -tags embedded ──► petrel [containerd, containerd-shim-runc-v2, runc: one tar, zstd]
//	                            │  first start, or a file that is not what it should be
//	                            ▼
//	                         DATA/agent/bin/{containerd,containerd-shim-runc-v2,runc}
//
// A build without the tag has none of them inside, and uses those that the machine has in its PATH. What is inside comes from
// cross-build/programs; docs/adr/0011-single-binary.md says why it is three programs and not petrel under three names.
package programs

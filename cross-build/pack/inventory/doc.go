// Package inventory finds out what a binary consists of, and under which licences: Go modules by the information that the Go tool
// put into it, the programs that travel inside petrel in the same way, and the C libraries that are linked into one of them.
//
//	petrel ── modules
//	  ├─ containerd ── modules
//	  ├─ containerd-shim-runc-v2 ── modules
//	  └─ runc ── modules, libseccomp, libc
//
// The texts come from the module cache, which has what the binary was built from. A module whose licence is not recognised, or is
// none of those that a binary may be passed on under, is an error: nothing is shipped on a guess.
package inventory

// Package e2e holds tests of the finished binary from outside: real processes, real containers, the real kubectl.
// They need root, containerd and runc; `make test` brings them. Each machine of a test is a network namespace.
package e2e

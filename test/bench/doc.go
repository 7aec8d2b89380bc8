// Package bench measures the finished hub from outside: the real binary in a process of its own, a client-go client beside
// it on the same machine. `make bench` runs it; docs/performance.md has the figures and says what they mean.
package bench

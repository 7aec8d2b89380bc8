//go:build !linux

package svcproxy

import "syscall"

// freeBind is a Linux feature; elsewhere this package only serves programs that use its types.
func freeBind(string, string, syscall.RawConn) error { return nil }

// peek says that a datagram waits, so that the read that follows does the waiting.
func peek(uintptr) error { return nil }

func enlargeQueue(syscall.Conn, int) {}

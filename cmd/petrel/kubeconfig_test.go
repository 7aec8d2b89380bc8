package main

import "testing"

// TestReachable shows which address is in a kubeconfig that is taken to another machine.
func TestReachable(t *testing.T) {
	for _, c := range []struct{ server, own, listensAt, want string }{
		{"https://127.0.0.1:6443", "192.168.1.5", "192.168.1.5:6443", "https://192.168.1.5:6443"},
		{"https://[::1]:6443", "fd00::5", "[fd00::5]:6443", "https://[fd00::5]:6443"},
		{"https://hub.example.org:6443", "192.168.1.5", "192.168.1.5:6443", "https://hub.example.org:6443"}, // advertised
		{"https://127.0.0.1:6443", "192.168.1.5", "", "https://127.0.0.1:6443"},                             // on loopback only, or not running
		{"https://127.0.0.1:6443", "", "", "https://127.0.0.1:6443"},                                        // no network
	} {
		got := reachable(c.server, c.own, func(address string) bool { return address == c.listensAt })
		if got != c.want {
			t.Errorf("reachable(%s, %s) is %s, want %s", c.server, c.own, got, c.want)
		}
	}
}

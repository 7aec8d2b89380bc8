package svcproxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// Which endpoints a client on node n1 in zone quay uses, by their hints.
func TestHintedEndpoints(t *testing.T) {
	port := Port{Name: "http", Protocol: TCP, Port: 80}
	for _, tt := range []struct{ name, endpoints, zone, want string }{
		{"no hints", "- - -", "quay", "1 2 3"},
		{"the zone's", "quay dock quay", "quay", "1 3"},
		{"one without a hint", "quay - quay", "quay", "1 2 3"},
		{"none for the zone", "dock dock", "quay", "1 2"},
		{"a node without a zone", "quay dock", "", "1 2"},
		{"the node's", "quay@n1 quay@n2 dock@n3", "quay", "1"},
		{"none for the node", "quay@n4 quay@n2 dock@n3", "quay", "1 2"},
		{"one without the node", "quay@n1 quay dock@n3", "quay", "1 2"},
		{"one that is not ready does not count", "quay dock !-", "quay", "1"},
		{"one of another port does not count", "quay dock other", "quay", "1"},
		{"nobody near is ready", "!quay dock", "quay", "2"},
		{"nobody is ready, one serves", "!quay ~dock", "quay", "2"},
	} {
		s := &Service{}
		for i, f := range strings.Fields(tt.endpoints) {
			e := Endpoint{Addr: netip.AddrFrom4([4]byte{10, 42, 0, byte(i + 1)}), Ports: map[string]uint16{"http": 8080}, Ready: true, Serving: true}
			if f[0] == '!' || f[0] == '~' {
				e.Ready, e.Serving, e.Terminating, f = false, f[0] == '~', f[0] == '~', f[1:]
			}
			zone, node, _ := strings.Cut(f, "@")
			switch {
			case zone == "other":
				e.Ports = map[string]uint16{"other": 1}
			case zone != "-":
				e.Zones = []string{zone}
			}
			if node != "" {
				e.Nodes = []string{node}
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		var got []string
		for _, a := range usable(s, port, "n1", tt.zone, false) {
			got = append(got, fmt.Sprint(a.Addr().As4()[3]))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: uses %v, want %s", tt.name, got, tt.want)
		}
	}
}

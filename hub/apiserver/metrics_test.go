package apiserver_test

import (
	"strings"
	"testing"

	"petrel.dev/petrel/hub/apiserver"
)

// TestAgentPanicsInMetrics checks that the panics of the nodes' agents are in the hub's metrics.
func TestAgentPanicsInMetrics(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) {
		c.AgentPanics = func() map[string]uint64 { return map[string]uint64{"pi-1": 3} }
	})
	if a := h.do("GET", "/metrics", ""); !strings.Contains(a.body, "\npetrel_agent_panics_total{node=\"pi-1\"} 3\n") {
		t.Errorf("%d, no such line in:\n%s", a.code, a.body)
	}
}

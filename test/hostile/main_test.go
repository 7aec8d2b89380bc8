package hostile

import (
	"testing"

	"petrel.dev/petrel/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// beside lets an attack in its short form run beside others: what it uses is of its own hub and node, and it mostly waits. Those that
// measure how much memory a hub needs under load run alone, since a busy processor makes that more.
func beside(t *testing.T) {
	if !Full() {
		t.Parallel()
	}
}

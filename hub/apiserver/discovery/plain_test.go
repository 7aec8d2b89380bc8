package discovery

import (
	"testing"

	"petrel.dev/petrel/hub/resource/builtin"
)

// TestStorageVersionHash checks that it is the one that Kubernetes publishes for its pods, and that versions which are stored as one
// have the same.
func TestStorageVersionHash(t *testing.T) {
	hashes := map[string]map[string]bool{}
	for _, k := range builtin.New().All() {
		name := k.Plural + "." + k.GVK.Group
		if hashes[name] == nil {
			hashes[name] = map[string]bool{}
		}
		hashes[name][storageHash(k)] = true
	}
	if !hashes["pods."]["xPOwRZ+Yhw8="] {
		t.Errorf("pods: %v", hashes["pods."])
	}
	if got := hashes["horizontalpodautoscalers.autoscaling"]; len(got) != 1 {
		t.Errorf("versions of autoscalers have %v", got)
	}
}

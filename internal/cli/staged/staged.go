// Package staged reads the annotations and conditions of staged rollouts (docs/fleet-rollouts.md), and says which annotation
// approves, pauses or resumes one.
package staged

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/internal/kube"
)

// allWaves is more than a rollout can have.
const allWaves = 1000

// Change is an annotation to set, or to remove when Value is nil, and what it does in one word or a few.
type Change struct {
	Key   string
	Value any
	Done  string
}

// Patch returns the change as a merge patch.
func (c Change) Patch() ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{c.Key: c.Value}}})
}

// Is reports whether a workload's annotations stage its rollouts.
func Is(obj *unstructured.Unstructured) bool {
	for key := range obj.GetAnnotations() {
		if strings.HasPrefix(key, kube.RolloutPrefix) {
			return true
		}
	}
	return false
}

// Approve returns the approval of the wave that waits for it or, with all, of each that follows. name is how errors call the workload.
func Approve(obj *unstructured.Unstructured, name string, all bool) (Change, error) {
	if !Is(obj) {
		return Change{}, fmt.Errorf("%s has no staged rollout: none of its annotations begins with %s", name, kube.RolloutPrefix)
	}
	reason, message := condition(obj)
	if reason != "WaitingForApproval" && !all {
		return Change{}, fmt.Errorf("nothing of %s waits for approval: %s", name, message)
	}
	var state struct {
		Revision string `json:"revision"`
		Wave     int    `json:"wave"`
	}
	if err := json.Unmarshal([]byte(obj.GetAnnotations()[kube.RolloutState]), &state); err != nil || state.Revision == "" {
		return Change{}, fmt.Errorf("%s has no rollout to approve yet", name)
	}
	wave, done := state.Wave+1, fmt.Sprintf("wave %d approved", state.Wave+1)
	if all {
		wave, done = allWaves, "all waves approved"
	}
	return Change{kube.RolloutApproved, fmt.Sprintf("%s/%d", state.Revision, wave), done + " for revision " + state.Revision}, nil
}

// Pause returns what pauses or resumes a staged rollout.
func Pause(obj *unstructured.Unstructured, name string, paused bool) (Change, error) {
	now := obj.GetAnnotations()[kube.RolloutPaused] == "true"
	switch {
	case now && paused:
		return Change{}, errors.New(name + " is paused already")
	case !now && !paused:
		return Change{}, errors.New(name + " is not paused")
	case paused:
		return Change{kube.RolloutPaused, "true", "paused"}, nil
	}
	return Change{kube.RolloutPaused, nil, "resumed"}, nil
}

// Line returns what the condition of a staged rollout says, as a line; "" when there is none, or it is complete.
func Line(obj *unstructured.Unstructured) string {
	reason, message := condition(obj)
	if reason == "" || reason == "Complete" {
		return ""
	}
	return message + "\n"
}

func condition(obj *unstructured.Unstructured) (reason, message string) {
	list, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, item := range list {
		if c, ok := item.(map[string]any); ok && c["type"] == kube.RolloutCondition {
			reason, _ = c["reason"].(string)
			message, _ = c["message"].(string)
			return reason, message
		}
	}
	return "", "it has not begun"
}

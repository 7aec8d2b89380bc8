package rules

import (
	"regexp"
	"testing"
)

var (
	carriesTransition = regexp.MustCompile(`LastTransitionTime\s*[=:]\s*[\w.\[\]]+\.LastTransitionTime\b`)
	appendsCondition  = regexp.MustCompile(`\.Conditions = append\([\w.]+\.Conditions, `)
)

// appends lists who may append to a list of conditions by hand, and why.
var appends = map[string]string{
	"edgeagent/podrun/lifecycle/conditions.go": "the list is new each time; KeepTransition looks into the last one",
}

// TestConditionsAreSetInOnePlace checks that when a condition's transition time stays and when it moves is decided by
// internal/kube (SetCondition, KeepTransition) and nowhere else.
func TestConditionsAreSetInOnePlace(t *testing.T) {
	for _, folder := range []string{"hub", "edgeagent", "internal", "sched"} {
		production(t, folder, func(rel, text string) {
			if rel == "internal/kube/condition.go" {
				return
			}
			if m := carriesTransition.FindString(text); m != "" {
				t.Errorf("%s carries a transition time over by hand: %q: use kube.SetCondition or kube.KeepTransition", rel, m)
			}
			if m := appendsCondition.FindString(text); m != "" && appends[rel] == "" {
				t.Errorf("%s adds a condition by hand: %q: use kube.SetCondition", rel, m)
			}
		})
	}
}

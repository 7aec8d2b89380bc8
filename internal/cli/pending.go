package cli

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// whyPending returns a block with the reasons why a pod has no node, each on a line of its own; "" for other objects. The events that
// report them too are gone after a while, the condition stays.
func whyPending(o *unstructured.Unstructured) string {
	if o.GetKind() != "Pod" || o.GetAPIVersion() != "v1" {
		return ""
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		m, _ := c.(map[string]any)
		if m["type"] != string(corev1.PodScheduled) || m["status"] != string(corev1.ConditionFalse) {
			continue
		}
		text := fmt.Sprint(m["message"])
		text = strings.Replace(text, " preemption: ", "\n  preemption: ", 1)
		text = strings.ReplaceAll(text, " nodes are available: ", " nodes are available:\n    ")
		text = regexp.MustCompile(`, (\d)`).ReplaceAllString(text, ",\n    $1") // other commas are inside of reasons
		return fmt.Sprintf("Not Scheduled:  %v\n  %s\n", m["reason"], text)
	}
	return ""
}

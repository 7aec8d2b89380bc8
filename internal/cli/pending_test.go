package cli

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestWhyPending checks that each reason of the scheduler has a line, whatever is in it.
func TestWhyPending(t *testing.T) {
	pod := func(status, message string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "status": map[string]any{
			"conditions": []any{map[string]any{"type": "PodScheduled", "status": status, "reason": "Unschedulable", "message": message}}}}}
	}
	for name, test := range map[string]struct {
		pod  *unstructured.Unstructured
		want []string
	}{
		"scheduled": {pod("True", ""), nil},
		"counted": {pod("False", "0/5 nodes are available: 1 Insufficient cpu, 1 node(s) had architecture arm64, for which there is no image app (only for amd64), "+
			"3 node(s) had untolerated taint {gpu: true}. preemption: 0/5 nodes are available: 1 No preemption victims found for incoming pod, 4 Preemption is not helpful for scheduling."),
			[]string{"Not Scheduled:  Unschedulable", "  0/5 nodes are available:", "    1 Insufficient cpu,",
				"    1 node(s) had architecture arm64, for which there is no image app (only for amd64),", "    3 node(s) had untolerated taint {gpu: true}.",
				"  preemption: 0/5 nodes are available:", "    1 No preemption victims found for incoming pod,", "    4 Preemption is not helpful for scheduling."}},
		"never": {pod("False", "0/1 nodes are available: 1 Too many pods. preemption: not eligible due to preemptionPolicy=Never."),
			[]string{"Not Scheduled:  Unschedulable", "  0/1 nodes are available:", "    1 Too many pods.", "  preemption: not eligible due to preemptionPolicy=Never."}},
		"no nodes": {pod("False", "no nodes available to schedule pods"), []string{"Not Scheduled:  Unschedulable", "  no nodes available to schedule pods"}},
	} {
		got := strings.Split(strings.TrimSuffix(whyPending(test.pod), "\n"), "\n")
		if want := strings.Join(test.want, "\n"); strings.Join(got, "\n") != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), want)
		}
	}
}

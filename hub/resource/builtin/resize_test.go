package builtin

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/resource/resourcetest"
)

// TestPodResize checks that the subresource changes CPU and memory and nothing else, and that the pod's own update
// cannot.
func TestPodResize(t *testing.T) {
	k := byResource(t, "pods", "")
	s := k.Subresources["resize"]
	old := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {
		containers: [{name: c, image: i, resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}}, {name: d, image: i}],
		initContainers: [{name: s, image: i, restartPolicy: Always}]}}`).(*corev1.Pod)
	wantErrors(t, resourcetest.Create(k, old), nil)
	old.ResourceVersion, old.Status.QOSClass = "7", corev1.PodQOSBurstable
	pod := changed(t, s.Rules, old, `{metadata: {labels: {x: "z"}}, spec: {nodeName: other, containers: [
		{name: c, image: other, resources: {requests: {cpu: 150m, memory: 64Mi}, limits: {cpu: 300m, memory: 128Mi}}},
		{name: d, image: i, resources: {requests: {cpu: 10m}}}]}, status: {phase: Failed}}`).(*corev1.Pod)
	c := pod.Spec.Containers[0]
	if c.Resources.Limits.Memory().String() != "128Mi" || c.Resources.Requests.Cpu().String() != "150m" || pod.Spec.Containers[1].Resources.Requests.Cpu().String() != "10m" {
		t.Errorf("resized to %+v", pod.Spec.Containers)
	}
	if c.Image != "i" || pod.Labels != nil || pod.Spec.NodeName != "" || pod.Status.Phase != old.Status.Phase || pod.Generation != old.Generation+1 {
		t.Errorf("also changed: %+v", pod)
	}
	if same := changed(t, s.Rules, old, `{spec: {nodeName: other}}`).(*corev1.Pod); same.Generation != old.Generation {
		t.Errorf("nothing resized: generation %d", same.Generation)
	}
	policy := edit(`{spec: {containers: [{name: c, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]}]}}`)
	if errs := resourcetest.Update(s.Rules, policy(t, old.DeepCopy()), old); len(errs) != 1 {
		t.Errorf("a pod that runs gets another resize policy: %q", errs)
	}
	for change, want := range map[string][]string{
		`{spec: {containers: [{name: d, $patch: delete}]}}`: {`spec.containers: Forbidden: containers may not be added or removed on resize`},
		`{spec: {$setElementOrder/containers: [{name: d}, {name: c}], containers: [{name: d, image: i}]}}`: {`spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize`,
			`spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize`},
		`{spec: {containers: [{name: c, resources: {requests: {memory: null}, limits: null}}]}}`: {
			`spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed`,
			`spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed`},
		`{spec: {containers: [{name: d, resources: {requests: {ephemeral-storage: 1Gi}}}]}}`: {`spec: Forbidden: only cpu and memory resources are mutable`},
	} {
		obj := edit(change)(t, old.DeepCopy())
		got := resourcetest.Update(s.Rules, obj, old)
		for i := range got { // what follows is upstream's picture of the difference
			got[i], _, _ = strings.Cut(got[i], "\n")
		}
		wantErrors(t, got, want)
	}
	guaranteed := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 1, memory: 1Gi}}}]}}`).(*corev1.Pod)
	wantErrors(t, resourcetest.Create(k, guaranteed), nil)
	guaranteed.ResourceVersion = "7"
	larger := edit(`{spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}}]}}`)(t, guaranteed.DeepCopy())
	wantErrors(t, resourcetest.Update(s.Rules, larger, guaranteed), []string{`spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing`})
	if errs := resourcetest.Update(&k.Rules, edit(`{spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 2, memory: 1Gi}}}]}}`)(t, guaranteed.DeepCopy()), guaranteed); len(errs) != 1 {
		t.Errorf("the pod's own update resizes it: %q", errs)
	}
}

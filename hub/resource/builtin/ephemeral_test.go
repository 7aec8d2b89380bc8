package builtin

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/resource/resourcetest"
)

// TestEphemeralContainers checks that the subresource adds containers, changes nothing else, and keeps those that are there.
func TestEphemeralContainers(t *testing.T) {
	k := byResource(t, "pods", "")
	s := k.Subresources["ephemeralcontainers"]
	old := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i}]}}`).(*corev1.Pod)
	wantErrors(t, resourcetest.Create(k, old), nil)
	old.ResourceVersion = "7"
	pod := changed(t, s.Rules, old, `{metadata: {labels: {x: "z"}}, spec: {nodeName: other, ephemeralContainers: [{name: d, image: i, targetContainerName: c, stdin: true, tty: true}]}, status: {phase: Failed}}`).(*corev1.Pod)
	if got := pod.Spec.EphemeralContainers; len(got) != 1 || got[0].TargetContainerName != "c" || got[0].TerminationMessagePath != "/dev/termination-log" || got[0].ImagePullPolicy == "" {
		t.Errorf("added %+v", got)
	}
	if pod.Labels != nil || pod.Spec.NodeName != "" || pod.Status.Phase != old.Status.Phase || pod.Generation != old.Generation+1 {
		t.Errorf("also changed: %+v", pod)
	}
	for change, want := range map[string][]string{
		`{spec: {ephemeralContainers: null}}`:                      {`spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed`},
		`{spec: {ephemeralContainers: [{name: d, image: other}]}}`: {`spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be changed`},
		`{spec: {ephemeralContainers: [{name: d, image: i, targetContainerName: c, stdin: true, tty: true}, {name: c, image: i}]}}`:                            {`spec.ephemeralContainers[1].name: Duplicate value: "c"`},
		`{spec: {ephemeralContainers: [{name: d, image: i, targetContainerName: c, stdin: true, tty: true}, {name: e, image: i, targetContainerName: none}]}}`: {`spec.ephemeralContainers[1].targetContainerName: Not found: "none"`},
		`{spec: {ephemeralContainers: [{name: d, image: i, targetContainerName: c, stdin: true, tty: true}, {name: e, image: i, ports: [{containerPort: 80}]}]}}`: {
			`spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container`},
	} {
		obj := edit(change)(t, pod.DeepCopy())
		got := resourcetest.Update(s.Rules, obj, pod)
		for i := range got { // what follows is upstream's picture of the difference
			got[i], _, _ = strings.Cut(got[i], "\n")
		}
		wantErrors(t, got, want)
	}
	// A write of the pod itself can neither add nor remove one.
	if errs := resourcetest.Update(&k.Rules, edit(`{spec: {ephemeralContainers: null}}`)(t, pod.DeepCopy()), pod); len(errs) != 1 {
		t.Errorf("the pod's own update removes one: %q", errs)
	}
	// A client that writes it manages the containers, and nothing else.
	resets := k.Resets("ephemeralcontainers")
	has := func(path ...string) bool {
		return slices.ContainsFunc(resets, func(p []string) bool { return slices.Equal(p, path) })
	}
	if !has("metadata") || !has("status") || !has("spec", "containers") || !has("spec", "nodeName") || has("spec") || has("spec", "ephemeralContainers") {
		t.Errorf("resets %v", resets)
	}
}

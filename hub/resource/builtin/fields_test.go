package builtin

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/resource/resourcetest"
)

// TestUnservedFields checks that fields of features that are off in Kubernetes 1.36 are dropped on writing, as upstream's API
// server drops them, so that nobody reads back what nothing obeys; those of features that are on stay.
func TestUnservedFields(t *testing.T) {
	k := byResource(t, "pods", "")
	pod := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {os: {name: linux}, restartPolicy: Never, hostnameOverride: h.test, schedulingGroup: {podGroupName: g},
		containers: [{name: c, image: "i:1", restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}],
			lifecycle: {stopSignal: SIGUSR1, preStop: {sleep: {seconds: 1}}}}],
		volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {name: b, path: p}}, {podCertificate: {signerName: "x.test/y", keyType: ED25519, keyPath: k}}, {secret: {name: s}}]}}]}}`).(*corev1.Pod)
	if errs := resourcetest.Create(k, pod); len(errs) > 0 {
		t.Fatal(errs)
	}
	c := pod.Spec.Containers[0]
	if pod.Spec.SchedulingGroup != nil || c.Lifecycle.StopSignal != nil {
		t.Errorf("kept: %+v, %+v", pod.Spec.SchedulingGroup, c.Lifecycle)
	}
	for _, s := range pod.Spec.Volumes[0].Projected.Sources {
		if s.ClusterTrustBundle != nil || s.PodCertificate != nil {
			t.Errorf("kept: %+v", s)
		}
	}
	if pod.Spec.HostnameOverride == nil || len(c.RestartPolicyRules) != 1 || c.Lifecycle.PreStop.Sleep == nil {
		t.Errorf("dropped: %+v", pod.Spec)
	}
	wantErrors(t, resourcetest.Create(k, parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i}], ephemeralContainers: [{name: d, image: i}]}}`)),
		[]string{`spec.ephemeralContainers: Forbidden: cannot be set on create`})
}

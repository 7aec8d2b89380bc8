package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStagedRollout shows where a staged rollout is, approves what waits, and pauses it: all through annotations.
func TestStagedRollout(t *testing.T) {
	h := newFakeHub(t)
	ds := appsv1.DaemonSet{TypeMeta: metav1.TypeMeta{Kind: "DaemonSet", APIVersion: "apps/v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent",
		Annotations: map[string]string{"petrel.dev/rollout-waves": "50%", "petrel.dev/rollout-state": `{"revision":"abc","wave":1}`}},
		Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}},
		Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, UpdatedNumberScheduled: 1,
			Conditions: []appsv1.DaemonSetCondition{{Type: "petrel.dev/Rollout", Reason: "WaitingForApproval", Message: "wave 2 waits for approval."}}}}
	const path = "/apis/apps/v1/namespaces/default/daemonsets/agent"
	var patches []string
	h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			b, _ := io.ReadAll(r.Body)
			patches = append(patches, string(b))
			var p struct {
				Metadata struct{ Annotations map[string]*string }
			}
			_ = json.Unmarshal(b, &p)
			for k, v := range p.Metadata.Annotations {
				if delete(ds.Annotations, k); v != nil {
					ds.Annotations[k] = *v
				}
			}
		}
		writeJSON(w, http.StatusOK, ds)
	})
	one := oneWorkload{Cluster: h.cluster(), Args: []string{"daemonset/agent"}}
	var o output
	if err := (&RolloutStatus{oneWorkload: one}).Run(t.Context(), o.streams("")); err != nil || !strings.HasSuffix(o.out.String(), "1 out of 2 new pods have been updated...\nwave 2 waits for approval.\n") {
		t.Errorf("status: %v: %s", err, o.out.String())
	}
	mustFail(t, (&RolloutResume{one}).Run(t.Context(), o.streams("")), "is not paused")
	for _, err := range []error{(&RolloutApprove{oneWorkload: one}).Run(t.Context(), o.streams("")), (&RolloutApprove{oneWorkload: one, All: true}).Run(t.Context(), o.streams("")),
		(&RolloutPause{one}).Run(t.Context(), o.streams("")), (&RolloutResume{one}).Run(t.Context(), o.streams(""))} {
		if err != nil {
			t.Error(err)
		}
	}
	const a = `{"metadata":{"annotations":{"petrel.dev/rollout-`
	want := []string{a + `approved":"abc/2"}}}`, a + `approved":"abc/1000"}}}`, a + `paused":"true"}}}`, a + `paused":null}}}`}
	if strings.Join(patches, " ") != strings.Join(want, " ") {
		t.Errorf("%v; want %v", patches, want)
	}
	if !strings.Contains(o.out.String(), "wave 2 approved for revision abc") {
		t.Errorf("%s", o.out.String())
	}
	ds.Status.Conditions[0].Reason, ds.Status.Conditions[0].Message = "WaveSoaking", "it soaks."
	mustFail(t, (&RolloutApprove{oneWorkload: one}).Run(t.Context(), o.streams("")), "waits for approval: it soaks.")
	ds.Annotations = nil
	mustFail(t, (&RolloutApprove{oneWorkload: one}).Run(t.Context(), o.streams("")), "has no staged rollout")
}

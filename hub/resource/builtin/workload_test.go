package builtin

import (
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
)

// TestDaemonSetCountsItsTemplates checks that the number of the template, which v1 keeps in an annotation, is not the client's.
func TestDaemonSetCountsItsTemplates(t *testing.T) {
	const number = "deprecated.daemonset.template.generation"
	k := byResource(t, "daemonsets", "apps")
	d := made(t, k)
	if got := d.GetAnnotations()[number]; got != "1" {
		t.Errorf("a new one has %q", got)
	}
	if got := changed(t, &k.Rules, d, `{metadata: {annotations: {`+number+`: "7"}}, spec: {minReadySeconds: 3}}`); got.GetAnnotations()[number] != "1" || got.GetGeneration() != 2 {
		t.Errorf("%v, generation %d", got.GetAnnotations(), got.GetGeneration())
	}
	if got := changed(t, &k.Rules, d, `{spec: {template: {spec: {hostNetwork: true}}}}`).GetAnnotations()[number]; got != "2" {
		t.Errorf("a new template has %q", got)
	}
}

// TestJobSelectsItsOwnPods checks the labels that tell a job's pods from all others.
func TestJobSelectsItsOwnPods(t *testing.T) {
	k := byResource(t, "jobs", "batch")
	j := made(t, k).(*batchv1.Job)
	if got := metav1.FormatLabelSelector(j.Spec.Selector); got != "batch.kubernetes.io/controller-uid=uid-a" {
		t.Errorf("it selects %s", got)
	}
	if l := j.Spec.Template.Labels; l["batch.kubernetes.io/job-name"] != "a" || l["job-name"] != "a" || l["controller-uid"] != "uid-a" {
		t.Errorf("its pods are labelled %v", l)
	}
	manual := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {manualSelector: true, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}`).(*batchv1.Job)
	wantErrors(t, resourcetest.Create(k, manual), nil)
	if len(manual.Spec.Template.Labels) != 1 {
		t.Errorf("a manual selector: %v", manual.Spec.Template.Labels)
	}
	// A queueing controller may say what a suspended job gets, and nobody that of one that runs.
	const more = `{spec: {template: {spec: {nodeSelector: {zone: b}}}}}`
	if errs := resourcetest.Update(&k.Rules, edit(more)(t, j), j); len(errs) != 1 || !strings.HasPrefix(errs[0], "spec.template: Invalid value:") {
		t.Errorf("a running job's template: %q", errs)
	}
	suspend := true
	j.Spec.Suspend = &suspend
	changed(t, &k.Rules, j, more)
}

// TestSigningRequestSaysWhoAsks checks that the user of the request counts, whatever the object says.
func TestSigningRequestSaysWhoAsks(t *testing.T) {
	k := byResource(t, "certificatesigningrequests", "certificates.k8s.io")
	csr := sample(t, k).(*certificatesv1.CertificateSigningRequest)
	csr.Spec.Username, csr.Spec.Groups = "root", []string{"system:masters"}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: "True"}}
	ctx := resource.WithRequest(t.Context(), &resource.Request{User: auth.User{Name: "jane", UID: "7", Groups: []string{"team"}, Extra: map[string][]string{"k": {"v"}}}})
	k.Rules.PrepareCreate(ctx, csr)
	if s := csr.Spec; s.Username != "jane" || s.UID != "7" || fmt.Sprint(s.Groups, s.Extra) != "[team] map[k:[v]]" || len(csr.Status.Conditions) != 0 {
		t.Errorf("%+v", csr)
	}
	const approved = `{status: {conditions: [{type: Approved, status: "True"}], certificate: bm9uZQ==}}`
	if got := changed(t, &k.Rules, made(t, k), approved).(*certificatesv1.CertificateSigningRequest); len(got.Status.Conditions) != 0 {
		t.Errorf("an update approved it: %+v", got.Status)
	}
	got := changed(t, k.Subresources["approval"].Rules, made(t, k), approved).(*certificatesv1.CertificateSigningRequest)
	if c := got.Status.Conditions; len(c) != 1 || c[0].LastTransitionTime.IsZero() || got.Status.Certificate != nil {
		t.Errorf("approved: %+v", got.Status)
	}
	if errs := resourcetest.Update(k.Subresources["status"].Rules, edit(`{status: {conditions: null}}`)(t, got), got); len(errs) != 1 || !strings.Contains(errs[0], `updates may not remove a condition of type "Approved"`) {
		t.Errorf("a signer takes the approval back: %q", errs)
	}
}

// TestVolumePhases checks that the time of a volume's phase moves with it.
func TestVolumePhases(t *testing.T) {
	k := byResource(t, "persistentvolumes", "")
	v := made(t, k).(*corev1.PersistentVolume)
	old := metav1.NewTime(v.Status.LastPhaseTransitionTime.Add(-time.Hour))
	v.Status.LastPhaseTransitionTime = &old
	status := k.Subresources["status"].Rules
	if got := changed(t, status, v, `{status: {message: m, lastPhaseTransitionTime: null}}`).(*corev1.PersistentVolume); !got.Status.LastPhaseTransitionTime.Equal(&old) {
		t.Errorf("the phase is as before: %v", got.Status)
	}
	if got := changed(t, status, v, `{status: {phase: Available}}`).(*corev1.PersistentVolume); !got.Status.LastPhaseTransitionTime.After(old.Time) {
		t.Errorf("another phase: %v", got.Status)
	}
}

// TestAutoscalerViews checks that v1 shows what is stored as v2, and that what v1 cannot say survives it.
func TestAutoscalerViews(t *testing.T) {
	var stored, view *resource.Kind
	for _, k := range New().All() {
		if k.Plural == "horizontalpodautoscalers" && k.StoredAs == nil {
			stored = k
		} else if k.Plural == "horizontalpodautoscalers" {
			view = k
		}
	}
	obj, err := view.ToStored(t.Context(), sample(t, view))
	if err != nil {
		t.Fatal(err)
	}
	v2 := obj.(*autoscalingv2.HorizontalPodAutoscaler)
	if len(v2.Spec.Metrics) != 1 || *v2.Spec.Metrics[0].Resource.Target.AverageUtilization != 50 {
		t.Errorf("stored as %+v", v2.Spec)
	}
	bare, err := view.ToStored(t.Context(), parse(t, view, `{metadata: {name: a, namespace: ns}, spec: {maxReplicas: 3, scaleTargetRef: {kind: ReplicationController, name: r}}}`))
	if err != nil {
		t.Fatal(err)
	}
	view.Rules.PrepareCreate(t.Context(), bare)
	if m := bare.(*autoscalingv2.HorizontalPodAutoscaler).Spec.Metrics; len(m) != 1 || *m[0].Resource.Target.AverageUtilization != 80 {
		t.Errorf("v2's defaults are missing: %+v", m)
	}
	full := parse(t, stored, `{metadata: {name: a, namespace: ns}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d},
		metrics: [{type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: "10"}}}]}}`)
	shown, err := view.FromStored(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	if shown[0].GetAnnotations()["autoscaling.alpha.kubernetes.io/metrics"] == "" {
		t.Errorf("v1 shows %+v", shown[0])
	}
	back, err := view.ToStored(t.Context(), shown[0])
	if err != nil || back.(*autoscalingv2.HorizontalPodAutoscaler).Spec.Metrics[0].Pods.Metric.Name != "requests" {
		t.Errorf("back from v1: %+v, %v", back, err)
	}
}

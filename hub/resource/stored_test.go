package resource

import (
	"context"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"petrel.dev/petrel/internal/kube"
)

// TestStatusOfQuota checks that a quota's hard limits and its status are written apart from each other.
func TestStatusOfQuota(t *testing.T) {
	k := byResource(t, "resourcequotas", "")
	old := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {hard: {pods: 10}}, status: {used: {pods: 3}}}`).(*corev1.ResourceQuota)
	wantErrors(t, create(k, old), nil)
	if old.Status.Used != nil {
		t.Errorf("a creation set the status: %v", old.Status)
	}
	const both = `{spec: {hard: {pods: 11}}, status: {hard: {pods: 11}, used: {pods: 4}}}`
	q := changed(t, &k.Rules, old, both).(*corev1.ResourceQuota)
	if q.Spec.Hard.Pods().Value() != 11 || q.Status.Used != nil {
		t.Errorf("an update: %+v", q)
	}
	q = changed(t, k.Subresources["status"].Rules, old, both).(*corev1.ResourceQuota)
	if q.Spec.Hard.Pods().Value() != 10 || q.Status.Used.Pods().Value() != 4 {
		t.Errorf("an update of the status: %+v", q)
	}
}

// TestQuotaThatAsksForMoreThanItsLimit checks upstream's warnings.
func TestQuotaThatAsksForMoreThanItsLimit(t *testing.T) {
	k := byResource(t, "resourcequotas", "")
	q := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {hard: {cpu: 4, limits.cpu: 2, requests.memory: 1Gi, limits.memory: 2Gi, requests.ephemeral-storage: 2Gi, limits.ephemeral-storage: 1Gi}}}`)
	want := []string{"ResourceQuota cpu (4) should be less than limits.cpu (2)",
		"ResourceQuota requests.ephemeral-storage (2Gi) should be less than limits.ephemeral-storage (1Gi)"}
	if got := k.Rules.WarnCreate(context.Background(), q); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
}

// TestStoredKinds checks what upstream's strategies do to kinds that are little more than data.
func TestStoredKinds(t *testing.T) {
	templates := byResource(t, "podtemplates", "")
	template := made(t, templates).(*corev1.PodTemplate)
	if s := template.Template.Spec; template.Generation != 1 || s.RestartPolicy != corev1.RestartPolicyAlways || s.Containers[0].ImagePullPolicy == "" {
		t.Errorf("pod template: %+v", template)
	}
	if got := changed(t, &templates.Rules, template, `{metadata: {labels: {a: b}}}`).GetGeneration(); got != 1 {
		t.Errorf("a label makes generation %d of a pod template", got)
	}
	if got := changed(t, &templates.Rules, template, `{template: {spec: {hostNetwork: true}}}`).GetGeneration(); got != 2 {
		t.Errorf("a change makes generation %d of a pod template", got)
	}

	class := made(t, byResource(t, "priorityclasses", "scheduling.k8s.io")).(*schedulingv1.PriorityClass)
	if class.Generation != 1 || class.PreemptionPolicy == nil || *class.PreemptionPolicy != corev1.PreemptLowerPriority {
		t.Errorf("priority class: %+v", class)
	}

	limits := byResource(t, "limitranges", "")
	unnamed := parse(t, limits, `{metadata: {namespace: ns}, spec: {limits: [{type: Container, max: {cpu: 2}}]}}`).(*corev1.LimitRange)
	wantErrors(t, create(limits, unnamed), nil)
	table, err := limits.Table(context.Background(), []kube.Object{unnamed}, nil)
	if err != nil || table.ColumnDefinitions[1].Name != "Created At" || table.Rows[0].Cells[1] != unnamed.CreationTimestamp.UTC().Format(time.RFC3339) {
		t.Errorf("%+v, %v", table, err)
	}
	if unnamed.Name == "" || unnamed.Spec.Limits[0].Default.Cpu().String() != "2" {
		t.Errorf("limit range: %+v", unnamed)
	}

	revision := made(t, byResource(t, "controllerrevisions", "apps")).(*appsv1.ControllerRevision)
	if string(revision.Data.Raw) != `{"spec":{"replicas":2}}` || revision.Revision != 7 {
		t.Errorf("controller revision: %+v", revision)
	}
}

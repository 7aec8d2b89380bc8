package builtin

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// TestStatusOfQuota checks that a quota's hard limits and its status are written apart from each other.
func TestStatusOfQuota(t *testing.T) {
	k := byResource(t, "resourcequotas", "")
	old := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {hard: {pods: 10}}, status: {used: {pods: 3}}}`).(*corev1.ResourceQuota)
	wantErrors(t, resourcetest.Create(k, old), nil)
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
	wantErrors(t, resourcetest.Create(limits, unnamed), nil)
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

// TestSpecAndStatusApart checks, on kinds that have both, that an update writes the spec and counts it, and an update of the status
// the status alone.
func TestSpecAndStatusApart(t *testing.T) {
	for name, both := range map[string]string{
		"ingresses.networking.k8s.io": `{spec: {ingressClassName: other}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}`,
		"poddisruptionbudgets.policy": `{spec: {minAvailable: 2}, status: {currentHealthy: 3}}`,
	} {
		t.Run(name, func(t *testing.T) {
			plural, group, _ := strings.Cut(name, ".")
			k := byResource(t, plural, group)
			old := made(t, k)
			part := func(obj kube.Object, field string) any { return fieldsOf(t, obj)[field] }
			if got := edit(both)(t, sample(t, k)); len(resourcetest.Create(k, got)) > 0 || !reflect.DeepEqual(part(got, "status"), part(old, "status")) {
				t.Errorf("a creation set the status: %v", part(got, "status"))
			}
			obj := changed(t, &k.Rules, old, both)
			if obj.GetGeneration() != 2 || !reflect.DeepEqual(part(obj, "status"), part(old, "status")) || reflect.DeepEqual(part(obj, "spec"), part(old, "spec")) {
				t.Errorf("an update: generation %d, %v", obj.GetGeneration(), obj)
			}
			obj = changed(t, k.Subresources["status"].Rules, old, both)
			if obj.GetGeneration() != 1 || reflect.DeepEqual(part(obj, "status"), part(old, "status")) || !reflect.DeepEqual(part(obj, "spec"), part(old, "spec")) {
				t.Errorf("an update of the status: generation %d, %v", obj.GetGeneration(), obj)
			}
		})
	}
}

// fieldsOf are the object's fields as JSON shows them.
func fieldsOf(t *testing.T, obj kube.Object) map[string]any {
	t.Helper()
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWarningsOfNetworkKinds checks upstream's warnings.
func TestWarningsOfNetworkKinds(t *testing.T) {
	ingresses := byResource(t, "ingresses", "networking.k8s.io")
	in := parse(t, ingresses, `{metadata: {name: a, namespace: ns, annotations: {kubernetes.io/ingress.class: c}}, spec: {}}`)
	want := []string{`annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead`}
	if got := ingresses.Rules.WarnCreate(t.Context(), in); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	policies := byResource(t, "networkpolicies", "networking.k8s.io")
	p := parse(t, policies, `{metadata: {name: a, namespace: ns}, spec: {podSelector: {}, egress: [{}, {to: [{podSelector: {}}, {ipBlock: {cidr: 10.1.2.3/8}}]}]}}`)
	got := policies.Rules.WarnCreate(t.Context(), p)
	if len(got) != 1 || !strings.HasPrefix(got[0], "spec.egress[1].to[1].ipBlock.cidr: ") {
		t.Errorf("warnings %q", got)
	}
}

// TestVolumeAttachmentStatus checks that an attacher's status changes neither what is attached nor the labels.
func TestVolumeAttachmentStatus(t *testing.T) {
	k := byResource(t, "volumeattachments", "storage.k8s.io")
	const both = `{metadata: {labels: {x: "y"}}, status: {attached: true}}`
	a := changed(t, &k.Rules, made(t, k), both).(*storagev1.VolumeAttachment)
	if a.Status.Attached || a.Labels["x"] != "y" {
		t.Errorf("an update: %+v", a)
	}
	a = changed(t, k.Subresources["status"].Rules, made(t, k), both).(*storagev1.VolumeAttachment)
	if !a.Status.Attached || a.Labels["x"] != "" {
		t.Errorf("an update of the status: %+v", a)
	}
}

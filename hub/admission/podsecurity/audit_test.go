package podsecurity_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"petrel.dev/petrel/hub/admission/podsecurity"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TestAuditMode checks what the audit log has of a pod and of a workload: the policy that was enforced, and how a stricter one would be
// violated, also of what is refused.
func TestAuditMode(t *testing.T) {
	s := podsecurity.New(controltest.New(t, namespace("free"), namespace("seen", "enforce", "privileged", "audit", "baseline"),
		namespace("base", "enforce", "baseline", "audit", "baseline"), namespace("odd", "enforce", "paranoid")))
	const violation = `would violate PodSecurity "baseline:latest": ` + atHost
	workload := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "seen", Name: "d"}}
	workload.Spec.Template = corev1.PodTemplateSpec{Spec: spec(hostNetwork)}
	for _, test := range []struct {
		obj     kube.Object
		refused bool
		want    map[string]string // without the prefix
	}{
		{pod("free", "p", spec(hostNetwork)), false, map[string]string{"enforce-policy": "privileged:latest"}},
		{pod("seen", "p", spec()), false, map[string]string{"enforce-policy": "privileged:latest"}},
		{pod("seen", "p", spec(hostNetwork)), false, map[string]string{"enforce-policy": "privileged:latest", "audit-violations": violation}},
		{pod("base", "p", spec(hostNetwork)), true, map[string]string{"enforce-policy": "baseline:latest", "audit-violations": violation}},
		{pod("odd", "p", spec(hostNetwork)), true, map[string]string{"enforce-policy": "restricted:latest",
			"error": `Failed to parse policy: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "paranoid": must be one of privileged, baseline, restricted`}},
		{workload, false, map[string]string{"audit-violations": violation}},
	} {
		got := recorded(t, func(ctx context.Context) {
			a := &registry.AdmissionRequest{Operation: registry.OpCreate, Object: test.obj}
			a.Target = resource.Target{Kind: &resource.Kind{GVK: kube.Pod, Plural: "pods"}, Name: test.obj.GetName()}
			if err := s.Check(ctx, a); (err != nil) != test.refused {
				t.Errorf("%s in %s: %v", test.obj.GetName(), test.obj.GetNamespace(), err)
			}
		})
		want := map[string]string{}
		for k, v := range test.want {
			want["pod-security.kubernetes.io/"+k] = v
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s in %s is recorded with %v", test.obj.GetName(), test.obj.GetNamespace(), got)
		}
	}
}

// recorded returns the annotations of a request of which the audit log has metadata.
func recorded(t *testing.T, f func(ctx context.Context)) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cfg := audit.Config{PolicyFile: filepath.Join(dir, "policy.yaml"), Path: filepath.Join(dir, "audit.log")}
	policy := "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"
	if err := os.WriteFile(cfg.PolicyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	q := l.Begin(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), time.Time{}, auth.User{}, auth.Attributes{Verb: "post", Path: "/"})
	f(audit.WithRequest(t.Context(), q))
	q.Done(201, nil)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	var e auditv1.Event
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return e.Annotations
}

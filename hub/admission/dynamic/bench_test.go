package dynamic_test

import (
	"log/slog"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/kube"
)

// BenchmarkAdmission measures what configured admission adds to a write: as long as there is none, and with one policy or one webhook
// that is about other kinds, and one policy that is about this one.
func BenchmarkAdmission(b *testing.B) {
	policy := func(resource string) []kube.Object {
		r := resources()
		r.ResourceRules[0].Resources = []string{resource}
		return []kube.Object{
			&admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"},
				Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{MatchConstraints: r, Validations: []admissionregistrationv1.Validation{{Expression: `object.data.k == "v"`}}}},
			&admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"},
				Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "p", ValidationActions: []admissionregistrationv1.ValidationAction{"Deny"}}},
		}
	}
	for name, configured := range map[string][]kube.Object{"none": nil, "policy of others": policy("secrets"), "policy": policy("configmaps")} {
		b.Run(name, func(b *testing.B) {
			store, kinds := registrytest.Store(b), builtin.New()
			view := objects.New(objects.Config{Store: store, Kinds: kinds})
			d, err := dynamic.New(dynamic.Config{Objects: view, Kinds: kinds, Client: webhook.New(nil), Types: managedfields.NewDeducedTypeConverter(),
				Authorizer: auth.Union{auth.Masters{}}, Metrics: admissionwebhook.NewMetrics(), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			r := registrytest.Start(b, registry.Config{Store: store, Kinds: kinds, Objects: view})
			for _, o := range configured {
				registrytest.Create(b, r, o)
			}
			registrytest.Create(b, r, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
			k, _ := kinds.Lookup(kube.ConfigMap)
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x"}, Data: map[string]string{"k": "v"}}
			cm.SetGroupVersionKind(kube.ConfigMap)
			a := &registry.AdmissionRequest{Request: resource.Request{Target: resource.Target{Kind: k, Namespace: "ns", Name: "x"}}, As: k, Operation: registry.OpCreate, Object: cm}
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Mutate(b.Context(), a, nil); err != nil {
					b.Fatal(err)
				}
				if err := d.Validate(b.Context(), a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

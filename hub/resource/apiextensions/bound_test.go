package apiextensions

import (
	"encoding/json"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/memtest"
)

// TestGrowingRulesOfDefaults checks that a rule, which is evaluated for a default while its definition is checked, cannot make more than
// memory holds. Its cost, as it is estimated, is small.
func TestGrowingRulesOfDefaults(t *testing.T) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := json.Unmarshal([]byte(`{"metadata":{"name":"things.example.dev"},"spec":{"group":"example.dev","scope":"Namespaced",
		"names":{"plural":"things","singular":"thing","kind":"Thing","listKind":"ThingList"},"conversion":{"strategy":"None"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"string","default":"a",
			"x-kubernetes-validations":[{"rule":"'%.1000000000f'.format([1.0]) != ''"}]}}}}}]}}`), crd); err != nil {
		t.Fatal(err)
	}
	rules := definitionKind().Rules
	rules.PrepareCreate(t.Context(), crd)
	var created, updated field.ErrorList
	n := memtest.Allocated(func() {
		created, updated = rules.ValidateCreate(t.Context(), crd), rules.ValidateUpdate(t.Context(), crd, crd)
	})
	const text = "format: the result would have more than 3145728 bytes"
	if len(created) != 1 || !strings.Contains(created[0].Error(), text) {
		t.Errorf("created: %v", created)
	}
	t.Log(updated) // an update need not look at a default that was there before; it must only not take memory
	if n > 64 {
		t.Errorf("%d MiB were allocated", n)
	}
}

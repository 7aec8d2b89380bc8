package core

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"

	"petrel.dev/petrel/hub/resource"
)

// TestConvertOnce checks which rules of a write share an internal form: those that see an object after it has changed for the last time.
func TestConvertOnce(t *testing.T) {
	var prepared, preparedOld, validated, validatedOld, warned, warnedOld *api.ConfigMap
	rules := resource.Strategy[api.ConfigMap]{
		PrepareCreate:  func(c *api.ConfigMap) { prepared, c.Data = c, map[string]string{"prepared": c.Data["k"]} },
		ValidateCreate: func(c *api.ConfigMap) field.ErrorList { validated = c; return nil },
		WarnCreate:     func(_ context.Context, c *api.ConfigMap) []string { warned = c; return nil },
		PrepareUpdate: func(c, old *api.ConfigMap) {
			prepared, preparedOld, c.Data = c, old, map[string]string{"prepared": old.Data["k"]}
		},
		ValidateUpdate: func(c, old *api.ConfigMap) field.ErrorList { validated, validatedOld = c, old; return nil },
		WarnUpdate:     func(_ context.Context, c, old *api.ConfigMap) []string { warned, warnedOld = c, old; return nil },
	}.Rules()
	of := func(v string) *corev1.ConfigMap { return &corev1.ConfigMap{Data: map[string]string{"k": v}} }

	ctx, obj := resource.ConvertOnce(t.Context()), of("new")
	rules.PrepareCreate(ctx, obj)
	obj.Labels = map[string]string{"l": "set after the preparation"}
	rules.ValidateCreate(ctx, obj)
	rules.WarnCreate(ctx, obj)
	if validated == prepared || warned != validated || validated.Labels["l"] == "" || validated.Data["prepared"] != "new" {
		t.Errorf("creation: prepared %p, validated %p, warned %p: %v", prepared, validated, warned, validated)
	}

	ctx, obj, old := resource.ConvertOnce(t.Context()), of("new"), of("old")
	rules.PrepareUpdate(ctx, obj, old)
	obj.Labels = map[string]string{"l": "set after the preparation"}
	rules.ValidateUpdate(ctx, obj, old)
	rules.WarnUpdate(ctx, obj, old)
	if validated == prepared || warned != validated || validated.Labels["l"] == "" || validated.Data["prepared"] != "old" {
		t.Errorf("update: prepared %p, validated %p, warned %p: %v", prepared, validated, warned, validated)
	}
	if preparedOld != validatedOld || warnedOld != validatedOld || validatedOld == validated || validatedOld.Data["k"] != "old" {
		t.Errorf("the old object: prepared %p, validated %p, warned %p: %v", preparedOld, validatedOld, warnedOld, validatedOld)
	}

	// Without the context each rule converts, as do those of another object.
	before := validated
	rules.ValidateUpdate(t.Context(), obj, old)
	if validated == before {
		t.Error("a form outlived its write")
	}
	rules.ValidateCreate(ctx, of("third"))
	if validated.Data["k"] != "third" {
		t.Errorf("a third object has the form of another: %v", validated)
	}
}

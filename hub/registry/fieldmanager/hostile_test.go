package fieldmanager

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/memtest"
)

// TestHostileManagers writes objects with managedFields that no server has made, of up to the 3 MiB that a body may have, by an update, a
// creation and an apply. Each goes through, with managers that are valid or without any, or is refused with a Status, in bounded memory.
func TestHostileManagers(t *testing.T) {
	entries := func(n int, op metav1.ManagedFieldsOperationType, fields func(i int) string) []metav1.ManagedFieldsEntry {
		out := make([]metav1.ManagedFieldsEntry, n)
		for i := range out {
			out[i] = metav1.ManagedFieldsEntry{Manager: fmt.Sprint("m", i), Operation: op, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields(i))}
		}
		return out
	}
	one := func(fields string) []metav1.ManagedFieldsEntry {
		return entries(1, metav1.ManagedFieldsOperationUpdate, func(int) string { return fields })
	}
	mine := func(int) string { return `{"f:data":{"f:a":{}}}` }
	wide := func(n int, key string) string {
		var b strings.Builder
		b.WriteString(`{"f:data":{".":{}`)
		for i := range n {
			fmt.Fprintf(&b, `,"`+key+`":{}`, i)
		}
		b.WriteString("}}")
		return b.String()
	}
	deep := func(n int) string {
		return `{"f:data":` + strings.Repeat(`{"f:x":`, n) + "{}" + strings.Repeat("}", n) + "}"
	}
	branches := func(n, depth int) string {
		var b strings.Builder
		b.WriteString(`{".":{}`)
		for i := range n {
			fmt.Fprintf(&b, `,"f:b%d":%s`, i, deep(depth))
		}
		b.WriteString("}")
		return b.String()
	}
	for name, managers := range map[string][]metav1.ManagedFieldsEntry{
		"100,000 managers":              entries(100_000, metav1.ManagedFieldsOperationUpdate, mine),
		"30,000 managers that apply":    entries(30_000, metav1.ManagedFieldsOperationApply, mine),
		"9,000 managers that apply":     entries(9_000, metav1.ManagedFieldsOperationApply, mine),
		"managers of one name":          slicesOf(20_000, metav1.ManagedFieldsEntry{Manager: "m", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(mine(0))}),
		"managers of nothing":           entries(50_000, metav1.ManagedFieldsOperationUpdate, func(int) string { return "{}" }),
		"no fields at all":              slicesOf(20_000, metav1.ManagedFieldsEntry{Manager: "m", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1"}),
		"empty entries":                 slicesOf(100_000, metav1.ManagedFieldsEntry{}),
		"150,000 fields":                one(wide(150_000, "f:key-%d")),
		"15,000 fields":                 one(wide(15_000, "f:key-%d")),
		"100,000 items by value":        one(wide(100_000, `v:\"%d\"`)),
		"100,000 items by index":        one(wide(100_000, `i:%d`)),
		"50,000 items by key":           one(wide(50_000, `k:{\"a\":%d,\"b\":\"x\"}`)),
		"fields 900 deep":               one(deep(900)),
		"fields 100,000 deep":           one(deep(100_000)),
		"500 branches of 900":           one(branches(500, 900)),
		"keys of keys":                  one(wide(1000, `k:{\"a\":{\"b\":%d}}`)),
		"values that are none":          one(wide(1000, `v:{%d`)),
		"kinds of fields that are none": one(wide(1000, `x:%d`)),
		"huge numbers":                  one(wide(1000, `v:1e%d99`)),
		"one long name":                 one(`{"f:` + strings.Repeat("x", 3<<20) + `":{}}`),
		"no object":                     one(`[` + strings.Repeat("0,", 1_000_000) + `0]`),
		"cut":                           one(`{"f:data":{`),
		"a long name of a manager":      {{Manager: strings.Repeat("m", 1<<20), Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(mine(0))}},
		"a version of somewhere":        {{Manager: "m", Operation: "Apply", APIVersion: strings.Repeat("a/", 100_000) + "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(mine(0))}},
		"a subresource of somewhere":    {{Manager: "m", Operation: "Update", APIVersion: "v1", Subresource: "../status", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(mine(0))}},
		"5,000 versions of a kind":      versions(5000, mine(0)),
		"10,000 managers of 100 fields": entries(10_000, metav1.ManagedFieldsOperationApply, func(i int) string { return wide(3, fmt.Sprint("f:k", i)+"-%d") }),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, kube.ConfigMap)
			old := f.mustApply("one", nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1"}}`).(*corev1.ConfigMap)
			old.UID = "u"
			next := old.DeepCopy()
			next.Data["b"], next.ManagedFields = "3", managers
			made := next.DeepCopy()
			if n := memtest.Allocated(func() { f.update("two", old, next) }); n > 400 {
				t.Errorf("an update allocated %d MiB", n)
			}
			if next.Data["b"] != "3" || managedfields.ValidateManagedFields(next.ManagedFields) != nil || len(next.ManagedFields) > 10_100 {
				t.Errorf("the update left %d managers", len(next.ManagedFields))
			}
			if n := memtest.Allocated(func() { f.m.Created(t.Context(), f.request("two"), f.kind.Working(), made) }); n > 400 {
				t.Errorf("a creation allocated %d MiB", n)
			}
			if managedfields.ValidateManagedFields(made.ManagedFields) != nil {
				t.Errorf("the creation left %d managers", len(made.ManagedFields))
			}
			var applied kube.Object
			var err error
			if n := memtest.Allocated(func() {
				applied, err = f.apply("three", next, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"c":"4"}}`)
			}); n > 400 {
				t.Errorf("an apply allocated %d MiB", n)
			}
			if err != nil && !apierrors.IsRequestEntityTooLargeError(err) || err == nil && (applied.(*corev1.ConfigMap).Data["c"] != "4" || managedfields.ValidateManagedFields(applied.GetManagedFields()) != nil) {
				t.Errorf("the apply made %.300v, %v", applied, err)
			}
		})
	}
}

func slicesOf(n int, e metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	out := make([]metav1.ManagedFieldsEntry, n)
	for i := range out {
		out[i] = e
	}
	return out
}

func versions(n int, fields string) []metav1.ManagedFieldsEntry {
	out := make([]metav1.ManagedFieldsEntry, n)
	for i := range out {
		out[i] = metav1.ManagedFieldsEntry{Manager: "m", Operation: "Apply", APIVersion: fmt.Sprintf("v%d", i+2), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
	}
	return out
}

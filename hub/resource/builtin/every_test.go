package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// What every kind must do, shown on its sample.
func TestEveryKind(t *testing.T) {
	for _, k := range New().All() {
		t.Run(k.Plural+"."+k.GVK.Group, func(t *testing.T) {
			obj := made(t, k)
			t.Run("round trip", func(t *testing.T) { testRoundTrip(t, k, obj) })
			t.Run("protobuf", func(t *testing.T) { testProtobuf(t, obj) })
			if k.Virtual() && k.Named() { // it is only read
				t.Run("table", func(t *testing.T) { testTable(t, k, obj) })
				t.Run("fields", func(t *testing.T) { testFields(t, k, obj) })
			}
			if k.Virtual() {
				return
			}
			t.Run("update", func(t *testing.T) { testUpdate(t, k, obj) })
			t.Run("table", func(t *testing.T) { testTable(t, k, obj) })
			t.Run("fields", func(t *testing.T) { testFields(t, k, obj) })
			t.Run("owner", func(t *testing.T) { testOwner(t, k, obj) })
		})
	}
}

func testRoundTrip(t *testing.T, k *resource.Kind, obj kube.Object) {
	data, at, err := k.Codec.Encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	stored := slices.Insert(slices.Clone(data), at, []byte("4711")...)
	if !bytes.Contains(stored, []byte(`"resourceVersion":"4711"`)) || !json.Valid(stored) {
		t.Fatalf("the revision's place is off: %s", stored)
	}
	got, err := k.Codec.Decode(stored)
	if err != nil {
		t.Fatal(err)
	}
	want := obj.DeepCopyObject().(kube.Object)
	want.SetResourceVersion("4711")
	if !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("decoded differs:\n%s", cmp.Diff(want, got))
	}
	if strict, err := kjson.UnmarshalStrict(stored, k.New()); err != nil || len(strict) > 0 {
		t.Errorf("what Encode wrote is not strict: %v %v", strict, err)
	}
}

// Go clients send and ask for protobuf, and get back what JSON would say.
func testProtobuf(t *testing.T, obj kube.Object) {
	codec := protobuf.NewSerializer(resource.Scheme(), resource.Scheme())
	var b bytes.Buffer
	if err := codec.Encode(obj, &b); err != nil {
		t.Fatal(err)
	}
	got, _, err := codec.Decode(b.Bytes(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.GetObjectKind().SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	if set, ok := got.(*appsv1.StatefulSet); ok { // protobuf has no kinds inside of an object
		for i := range set.Spec.VolumeClaimTemplates {
			set.Spec.VolumeClaimTemplates[i].SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
		}
	}
	if !equality.Semantic.DeepEqual(got, obj) {
		t.Errorf("decoded differs:\n%s", cmp.Diff(obj, got))
	}
}

// An update that changes nothing but a label is accepted and leaves old alone.
func testUpdate(t *testing.T, k *resource.Kind, obj kube.Object) {
	old, err := k.ToStored(context.Background(), obj)
	if err != nil {
		t.Fatal(err)
	}
	before := old.DeepCopyObject()
	changed := old.DeepCopyObject().(kube.Object)
	changed.SetLabels(labels.Merge(changed.GetLabels(), labels.Set{"x": "y"}))
	if errs := resourcetest.Update(&k.Rules, changed, old); len(errs) > 0 {
		t.Errorf("refused: %q", errs)
	}
	if changed.GetLabels()["x"] != "y" {
		t.Error("the label is lost")
	}
	if !equality.Semantic.DeepEqual(before, old) {
		t.Errorf("the old object was changed:\n%s", cmp.Diff(before, old))
	}
	for name, s := range k.Subresources {
		if s.Rules == nil {
			continue
		}
		changed := old.DeepCopyObject().(kube.Object)
		if errs := resourcetest.Update(s.Rules, changed, old); len(errs) > 0 {
			t.Errorf("%s refused: %q", name, errs)
		}
	}
}

func testTable(t *testing.T, k *resource.Kind, obj kube.Object) {
	table, err := k.Columns(context.Background(), []kube.Object{obj, obj}, &metav1.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 2 || len(table.ColumnDefinitions) < 2 {
		t.Fatalf("%d rows, %d columns", len(table.Rows), len(table.ColumnDefinitions))
	}
	for _, row := range table.Rows {
		cells := len(table.ColumnDefinitions)
		if k.Plural == "ipaddresses" {
			cells++ // upstream's printer adds an age for which it has no column
		}
		if len(row.Cells) != cells {
			t.Errorf("%d cells below %d columns", len(row.Cells), len(table.ColumnDefinitions))
		}
		if row.Object.Object != obj {
			t.Error("a row does not carry its object")
		}
	}
	if !slices.Contains(table.Rows[0].Cells, any(obj.GetName())) {
		t.Errorf("no cell names the object: %v", table.Rows[0].Cells)
	}
	empty, err := k.Columns(context.Background(), nil, nil)
	if err != nil || empty.Rows == nil || len(empty.Rows) != 0 || len(empty.ColumnDefinitions) == 0 {
		t.Errorf("empty table: %+v, %v", empty, err)
	}
}

// Each declared field label is accepted and found in the set, and only those are.
func testFields(t *testing.T, k *resource.Kind, obj kube.Object) {
	set := k.Fields(obj)
	for _, label := range k.FieldLabels {
		selector, err := k.FieldSelector(fields.OneTermEqualSelector(label, "x"))
		if err != nil {
			t.Errorf("%s: %v", label, err)
			continue
		}
		for _, r := range selector.Requirements() {
			if _, ok := set[r.Field]; !ok && r.Field != "status.podIPs" { // accepted upstream, where it never matches either
				t.Errorf("%s: no such field in %v", r.Field, set)
			}
		}
	}
	_, err := k.FieldSelector(fields.OneTermEqualSelector("spec.nonsense", "x"))
	if err == nil || !slices.Contains([]string{
		"field label not supported: spec.nonsense",
		`field label "spec.nonsense" not supported for ` + k.GVK.Kind,
		"field label not supported for " + k.GVK.String() + ": spec.nonsense",
		`"spec.nonsense" is not a known field selector: only "metadata.name", "metadata.namespace"`,
	}, err.Error()) {
		t.Errorf("unknown field: %v", err)
	}
}

func testOwner(t *testing.T, k *resource.Kind, obj kube.Object) {
	owned := obj.DeepCopyObject().(kube.Object)
	owned.SetOwnerReferences([]metav1.OwnerReference{{UID: "u1"}, {UID: "u2"}})
	if got := fmt.Sprint(k.Indexes["owner"](owned)); got != "[u1 u2]" {
		t.Errorf("owners = %v", got)
	}
}

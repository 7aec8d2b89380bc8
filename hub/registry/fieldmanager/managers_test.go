package fieldmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/kube"
)

// fixture is the Managers of the built-in kinds with requests about one of them.
type fixture struct {
	t    testing.TB
	m    *Managers
	kind *resource.Kind
	log  *bytes.Buffer
}

func newFixture(t testing.TB, gvk kube.GVK) *fixture {
	t.Helper()
	kinds := builtin.New()
	k, ok := kinds.Lookup(gvk)
	if !ok {
		t.Fatalf("%s is not declared", gvk)
	}
	f := &fixture{t: t, kind: k, log: &bytes.Buffer{}}
	clock := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) }
	f.m = New(kinds, &openapi.Types{}, clock, slog.New(slog.NewTextHandler(f.log, nil)))
	return f
}

func (f *fixture) request(manager string) *resource.Request {
	return &resource.Request{Target: resource.Target{Kind: f.kind, Namespace: "default", Name: "o"}, Manager: manager}
}

func (f *fixture) apply(manager string, live kube.Object, body string) (kube.Object, error) {
	f.t.Helper()
	c, err := Decode(apitypes.ApplyYAMLPatchType, []byte(body), "")
	if err != nil {
		return nil, err
	}
	return f.m.Apply(context.Background(), f.request(manager), f.kind.Working(), live, c)
}

func (f *fixture) mustApply(manager string, live kube.Object, body string) kube.Object {
	f.t.Helper()
	obj, err := f.apply(manager, live, body)
	if err != nil {
		f.t.Fatal(err)
	}
	return obj
}

func (f *fixture) update(manager string, old, obj kube.Object) {
	f.m.Updated(context.Background(), f.request(manager), f.kind.Working(), old, obj)
}

// The times of entries are the registry's, and only those of who did something change.
func TestTimesOfManagers(t *testing.T) {
	f := newFixture(t, kube.ConfigMap)
	obj := f.mustApply("one", nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1"}}`)
	if at := obj.GetManagedFields()[0].Time; at.UTC().Format(time.RFC3339) != "2026-01-02T03:04:05Z" {
		t.Errorf("applied at %v", at)
	}
	f.m.now = func() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) }
	next := obj.DeepCopyObject().(*corev1.ConfigMap)
	next.UID, next.Data["b"] = "u", "2"
	f.update("two", obj, next)
	e := next.GetManagedFields()
	if len(e) != 2 || e[0].Time.Year() != 2026 || e[1].Time.Year() != 2027 {
		t.Errorf("managers are %v", e)
	}
}

// An apply works on a copy: what it is applied to is shared with all readers.
func TestApplyLeavesTheLiveObject(t *testing.T) {
	f := newFixture(t, kube.Pod)
	live := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "o", Namespace: "default", UID: "u", Annotations: map[string]string{
		lastApplied: `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"o"},"spec":{"containers":[{"name":"c","image":"i"}]}}`}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	live.SetGroupVersionKind(kube.Pod)
	before := live.DeepCopy()
	obj := f.mustApply("kubectl", live, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"o","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"j"}]}}`)
	if got := obj.(*corev1.Pod); got.Spec.Containers[0].Image != "j" {
		t.Errorf("applied %+v", got.Spec)
	}
	want, _ := json.Marshal(before)
	if got, _ := json.Marshal(live); !bytes.Equal(got, want) {
		t.Errorf("the live object became\n%s\nfrom\n%s", got, want)
	}
}

// countingTypes counts what is described and released.
type countingTypes struct {
	openapi.Types
	described, released int
}

func (c *countingTypes) TypeConverter(gvk schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	c.described++
	return c.Types.TypeConverter(gvk)
}

func (c *countingTypes) Release() {
	c.released++
	c.Types.Release()
}

// A kind is described at its first apply, and the description goes when nobody has needed it for a while. Writes of objects that nobody
// applies describe nothing.
func TestDescriptionsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, kube.ConfigMap)
		types := &countingTypes{}
		f.m.types = newTypeCache(f.m.kinds, types)
		cm := &corev1.ConfigMap{Data: map[string]string{"a": "1"}}
		f.m.Created(t.Context(), f.request("one"), f.kind, cm)
		f.update("one", cm, cm.DeepCopy())
		if types.described != 0 {
			t.Fatal("an object that nobody applies was described")
		}
		apply := func() {
			t.Helper()
			f.mustApply("one", nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1"}}`)
		}
		apply()
		time.Sleep(typesIdle - time.Second)
		apply()
		time.Sleep(typesIdle - time.Second)
		if types.described != 1 || types.released != 0 {
			t.Errorf("described %d times, released %d times, while it was in use", types.described, types.released)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(f.m.types.kept) != 0 || types.released != 1 || f.m.types.expiry != nil {
			t.Errorf("%d descriptions are kept, released %d times", len(f.m.types.kept), types.released)
		}
		apply()
		if types.described != 2 {
			t.Errorf("described %d times", types.described)
		}
		time.Sleep(2 * typesIdle)
	})
}

func TestDescriptionsAreBounded(t *testing.T) {
	f := newFixture(t, kube.ConfigMap)
	for i := range maxTypes + 10 {
		if _, err := f.m.types.of(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}); err != nil {
			t.Fatal(err)
		}
		f.m.types.mu.Lock()
		f.m.types.kept[schema.GroupVersionKind{Kind: fmt.Sprint(i)}] = &description{used: time.Now().Add(-time.Duration(i+1) * time.Second)}
		if len(f.m.types.kept) > maxTypes {
			f.m.types.dropOldest()
		}
		f.m.types.mu.Unlock()
	}
	f.m.types.mu.Lock()
	defer f.m.types.mu.Unlock()
	if n := len(f.m.types.kept); n > maxTypes || f.m.types.kept[kube.ConfigMap] == nil {
		t.Errorf("%d descriptions are kept", n)
	}
	f.m.types.expiry.Stop()
}

// What would take long is refused, or no longer tracked, before it runs.
func TestCostIsBounded(t *testing.T) {
	f := newFixture(t, kube.ConfigMap)
	data := func(n int) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprintf("a-key-of-some-length-%06d", i)] = ""
		}
		return out
	}
	small := f.mustApply("one", nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1"}}`).(*corev1.ConfigMap)
	small.UID = "u"
	large := small.DeepCopy()
	large.Data = data(60_000)
	f.update("two", small, large)
	if large.ManagedFields != nil || !strings.Contains(f.log.String(), "object is not tracked any more") {
		t.Errorf("%d managers of an object with too many fields; the log has %q", len(large.ManagedFields), f.log)
	}
	_, err := f.apply("two", large, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1"}}`)
	if !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("an apply to it: %v", err)
	}
	crowded := small.DeepCopy()
	crowded.Data = data(10_000)
	for i := range 1000 {
		crowded.ManagedFields = append(crowded.ManagedFields, metav1.ManagedFieldsEntry{Manager: fmt.Sprint(i), Operation: "Apply",
			APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:data":{"f:a":{}}}`)})
	}
	_, err = f.apply("two", crowded, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1"}}`)
	if !apierrors.IsRequestEntityTooLargeError(err) || !strings.Contains(err.Error(), "1001 managers") {
		t.Errorf("an apply to an object with many managers: %v", err)
	}
}

// Entries of managedFields come from clients. Whatever is in them, an apply and an update go on, or are refused with a Status.
func FuzzManagedFields(f *testing.F) {
	for _, seed := range []string{
		`{"f:data":{"f:a":{}}}`, `{"f:data":{".":{},"k:{\"a\":1}":{}}}`, `{"f:metadata":{"f:labels":{"v:1":{}}}}`, `{"f:data":null}`, `[]`, `{"i:-1":{}}`,
		`{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}}}}`, `{"f:kind":{},"f:apiVersion":{},"f:metadata":{"f:name":{}}}`,
	} {
		f.Add("Apply", "v1", "FieldsV1", "", seed)
		f.Add("Update", "apps/v1", "FieldsV1", "status", seed)
	}
	fix := newFixture(f, kube.ConfigMap)
	f.Fuzz(func(t *testing.T, op, version, kind, sub, fields string) {
		fix.t = t
		live := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "o", Namespace: "default", UID: "u", Labels: map[string]string{"1": "x"}},
			Data: map[string]string{"a": "1", "b": "2"}}
		live.SetGroupVersionKind(kube.ConfigMap)
		live.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Operation: metav1.ManagedFieldsOperationType(op), APIVersion: version,
			FieldsType: kind, Subresource: sub, FieldsV1: metav1.NewFieldsV1(fields)}}
		next := live.DeepCopy()
		next.Data["b"] = "3"
		fix.update("two", live, next)
		if next.Data["b"] != "3" || managedfields.ValidateManagedFields(next.ManagedFields) != nil {
			t.Fatalf("the update made %+v", next)
		}
		obj, err := fix.apply("one", live, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o"},"data":{"a":"1","c":"4"}}`)
		if err != nil {
			return
		}
		if cm := obj.(*corev1.ConfigMap); cm.Data["c"] != "4" || managedfields.ValidateManagedFields(cm.ManagedFields) != nil {
			t.Fatalf("the apply made %+v", cm)
		}
	})
}

// A configuration is anything that a client sends.
func FuzzApply(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"o"},"spec":{"containers":[{"name":"c"},{"name":"c"}]}}`,
		`{"apiVersion":"v1","kind":"Pod","metadata":null,"spec":[]}`, `{"apiVersion":"v1","kind":"Pod","spec":{"containers":null,"tolerations":[null]}}`,
		`{"apiVersion":"v1","kind":"Pod","metadata":{"finalizers":["a","a"],"managedFields":null,"creationTimestamp":5}}`,
		"apiVersion: v1\nkind: Pod\nmetadata: &m {labels: *m}\n", "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: {}}, 5, []]}\n", `null`, `[`,
	} {
		f.Add(seed)
	}
	fix := newFixture(f, kube.Pod)
	live := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "o", Namespace: "default", UID: "u"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	live.SetGroupVersionKind(kube.Pod)
	tracked := fix.mustApply("zero", live, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"o"},"spec":{"containers":[{"name":"d","image":"x"}]}}`)
	f.Fuzz(func(t *testing.T, body string) {
		fix.t = t
		for _, old := range []kube.Object{nil, live, tracked} {
			obj, err := fix.apply("one", old, body)
			if err != nil {
				if obj != nil {
					t.Fatalf("an object and the error %v", err)
				}
				continue
			}
			if _, ok := obj.(*corev1.Pod); !ok || managedfields.ValidateManagedFields(obj.GetManagedFields()) != nil {
				t.Fatalf("the apply made %#v", obj)
			}
		}
	})
}

// Lists that are sets may not have an entry twice, with upstream's text.
func TestDuplicatesInSets(t *testing.T) {
	f := newFixture(t, kube.ConfigMap)
	_, err := f.apply("one", nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"o","finalizers":["a/b","a/b"]}}`)
	const want = `failed to create typed patch object (/o; /v1, Kind=ConfigMap): .metadata.finalizers: duplicate entries for key [="a/b"]`
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		t.Errorf("%v is a Status; upstream's is a plain error", err)
	}
}

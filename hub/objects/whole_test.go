package objects_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/memtest"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/memory"
)

// manyFields returns an object of some 33 bytes of JSON for each field.
func manyFields(name string, fields int) kube.Object {
	obj := widgetKind().New().(*unstructured.Unstructured)
	obj.SetNamespace("default")
	obj.SetName(name)
	spec := map[string]any{}
	for i := range fields {
		spec[fmt.Sprintf("field-%05d", i)] = map[string]any{"a": "0123456789"}
	}
	obj.Object["spec"] = spec
	return obj
}

// TestCustomObjectsAreSmall checks that custom objects which a loop follows do not take many times their JSON, however they came into
// the cache. Decoded, ten of 660 KB take 90 MiB.
func TestCustomObjectsAreSmall(t *testing.T) {
	store, kinds := memory.New(memory.Config{}), builtin.New()
	k := widgetKind()
	if err := kinds.Add(k); err != nil {
		t.Fatal(err)
	}
	c := objects.New(objects.Config{Store: store, Kinds: kinds})
	var revs []sqlstore.Revision
	commit := func(prefix string) {
		for i := range 10 {
			put(t, store, k, manyFields(fmt.Sprintf("%s-%d", prefix, i), 20_000))
		}
		rev, err := store.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, rev)
	}
	const most = 1 << 20
	commit("filled")
	before := memtest.Live()
	c.Subscribe(t.Context(), func(control.Change) {}, widgetGVK)
	if n := len(c.List(widgetGVK, "default")); n != 10 {
		t.Fatalf("%d objects", n)
	}
	grown := memtest.Live() - before
	t.Logf("filled: %d bytes", grown)
	if grown > most {
		t.Errorf("ten objects in the cache take %d bytes", grown)
	}
	commit("followed")
	before = memtest.Live()
	run(t, c)
	if err := c.WaitFor(t.Context(), revs[1]); err != nil {
		t.Fatal(err)
	}
	if n := len(c.List(widgetGVK, "default")); n != 20 {
		t.Fatalf("%d objects", n)
	}
	grown = memtest.Live() - before
	t.Logf("followed: %d bytes", grown)
	if grown > most {
		t.Errorf("ten objects that came by the feed take %d bytes", grown)
	}
	runtime.KeepAlive(c)
}

// TestPartsAndWholes checks what reads show of a custom object, and that all else gets all of it.
func TestPartsAndWholes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, kinds := memory.New(memory.Config{}), builtin.New()
		k := widgetKind()
		if err := kinds.Add(k); err != nil {
			t.Fatal(err)
		}
		c := objects.New(objects.Config{Store: store, Kinds: kinds})
		run(t, c)
		var changed []kube.Object
		c.Subscribe(t.Context(), func(ch control.Change) { changed = append(changed, ch.Object()) }, widgetGVK)
		obj := manyFields("a", 2)
		obj.SetUID("1")
		obj.SetLabels(map[string]string{"app": "web"})
		obj.SetAnnotations(map[string]string{"note": strings.Repeat("x", 1000)})
		obj.SetFinalizers([]string{"example.dev/hold"})
		obj.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "o", UID: "o-uid"}})
		put(t, store, k, obj)
		synctest.Wait()
		listed, indexed := c.List(widgetGVK, ""), c.Index(widgetGVK, control.OwnerIndex, "o-uid")
		got, ok := c.Get(widgetGVK, "default", "a")
		if !ok || len(listed) != 1 || len(indexed) != 1 || len(changed) != 1 || listed[0] != got || indexed[0] != got || changed[0] != got {
			t.Fatalf("%v, %v, %v, %v", got, listed, indexed, changed)
		}
		part, ok := got.(*metav1.PartialObjectMetadata)
		if !ok || part.Labels["app"] != "web" || part.Finalizers[0] != "example.dev/hold" || part.UID != "1" || part.OwnerReferences[0].Name != "o" {
			t.Errorf("reads show %T %+v", got, got)
		}
		if part.Annotations != nil || part.GroupVersionKind() != widgetGVK || part.ResourceVersion != "1" {
			t.Errorf("reads show %+v", part)
		}
		key := resource.Key(k, "default", "a")
		if o, ok := c.At(key, 1); ok {
			t.Errorf("a part is passed as what is stored: %v", o)
		}
		if o, ok := c.AtHand(key, 1); ok {
			t.Errorf("a part is passed as what is stored: %v", o)
		}
		e, _, err := store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		wholes := map[string]func() (kube.Object, error){
			"Typed": func() (kube.Object, error) { return c.Typed(k, key, e.Rev, e.Value) },
			"AtHand": func() (kube.Object, error) {
				o, _ := c.AtHand(key, e.Rev)
				return o, nil
			},
			"Whole": func() (kube.Object, error) {
				o, _, err := c.Whole(t.Context(), widgetGVK, "default", "a")
				return o, err
			},
		}
		for _, name := range []string{"Whole", "Typed", "AtHand", "Whole"} {
			o, err := wholes[name]()
			u, ok := o.(*unstructured.Unstructured)
			if err != nil || !ok || len(u.Object["spec"].(map[string]any)) != 2 || len(u.GetAnnotations()) != 1 {
				t.Errorf("%s: %v, %v", name, o, err)
			}
		}
		if m, err := c.Metadata(k, key, e.Rev, e.Value); err != nil || m != got {
			t.Errorf("metadata is %v, %v", m, err)
		}
		if m, err := c.Metadata(k, key, e.Rev+1, e.Value); err != nil || m.GetLabels()["app"] != "web" {
			t.Errorf("metadata of another revision is %v, %v", m, err)
		}
		if o, ok, err := c.Whole(t.Context(), widgetGVK, "default", "b"); ok || err != nil {
			t.Errorf("an object that is not there: %v, %v", o, err)
		}
	})
}

// TestWholeFailsWithTheStore checks that what the store does not answer is an error and not an object that is not there.
func TestWholeFailsWithTheStore(t *testing.T) {
	store, kinds := memory.New(memory.Config{}), builtin.New()
	if err := kinds.Add(widgetKind()); err != nil {
		t.Fatal(err)
	}
	putWidget(t, store, "a")
	c := objects.New(objects.Config{Store: failingGet{store}, Kinds: kinds})
	if o, ok, err := c.Whole(t.Context(), widgetGVK, "default", "a"); err == nil {
		t.Errorf("%v, %v", o, ok)
	}
}

type failingGet struct{ sqlstore.Store }

func (failingGet) Get(context.Context, string) (sqlstore.Entry, bool, error) {
	return sqlstore.Entry{}, false, sqlstore.ErrClosed
}

// TestOddMetadataIsRead checks that stored metadata of another shape than the API has it does not hide an object from loops.
func TestOddMetadataIsRead(t *testing.T) {
	k := widgetKind()
	for _, metadata := range []string{
		`"labels":{"a":1},"uid":"u"`, `"annotations":[],"uid":"u"`, `"managedFields":7,"uid":"u"`, `"creationTimestamp":"yesterday","uid":"u"`,
	} {
		obj, err := k.Slim([]byte(`{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{"name":"a","namespace":"default","finalizers":["x"],` + metadata + `},"spec":1}`))
		if err != nil || obj.GetName() != "a" || obj.GetUID() != "u" || len(obj.GetFinalizers()) != 1 {
			t.Errorf("%s: %v, %v", metadata, obj, err)
		}
	}
	if obj, err := k.Slim([]byte(`null`)); err == nil {
		t.Errorf("null is %v", obj)
	}
	if obj, err := k.Slim([]byte(`{"metadata":`)); err == nil {
		t.Errorf("half an object is %v", obj)
	}
}

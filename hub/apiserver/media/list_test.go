package media

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// configMaps returns a list of n objects with size bytes each, and their JSON.
func configMaps(t *testing.T, n, size int) (*corev1.ConfigMapList, []json.RawMessage) {
	t.Helper()
	list := &corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{Kind: "ConfigMapList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "c"}}
	items := make([]json.RawMessage, n)
	for i := range items {
		list.Items = append(list.Items, corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("a", i), Namespace: "default"},
			Data:       map[string]string{"empty": "", "k": strings.Repeat("x", size)},
		})
		one := list.Items[i]
		one.TypeMeta = metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}
		var err error
		if items[i], err = json.Marshal(one); err != nil {
			t.Fatal(err)
		}
	}
	return list, items
}

func codec(t *testing.T) (*Codec, *runtime.Scheme) {
	t.Helper()
	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return NewCodec(s), s
}

// pairs returns items two at a time.
func pairs(items []json.RawMessage) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		for pair := range slices.Chunk(items, 2) {
			if !yield(pair, nil) {
				return
			}
		}
	}
}

// TestProtobufLists compares lists that are written item by item with what upstream's serializer makes of the whole: none and one item,
// sizes around each length of a length, and more than is kept.
func TestProtobufLists(t *testing.T) {
	c, s := codec(t)
	for _, of := range []struct{ n, size int }{{0, 0}, {1, 0}, {3, 50}, {3, 200}, {20, 20_000}, {12, 1 << 20}} {
		list, items := configMaps(t, of.n, of.size)
		var want, got bytes.Buffer
		if err := protobuf.NewSerializer(s, s).Encode(list, &want); err != nil {
			t.Fatal(err)
		}
		l := &List{Kind: "ConfigMapList", APIVersion: "v1", Meta: list.ListMeta, Items: ItemsOf(pairs(items)), Count: of.n}
		if err := c.WriteBinary(&got, Form{Media: Protobuf}, l); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%d items of %d bytes: %d bytes, upstream has %d", of.n, of.size, got.Len(), want.Len())
		}
	}
}

// TestListsThatFail checks that an item that cannot be made is an error, for protobuf before anything was written.
func TestListsThatFail(t *testing.T) {
	c, _ := codec(t)
	_, good := configMaps(t, 2, 10)
	bad := append(good, json.RawMessage(`{"kind":"Other","apiVersion":"v9"}`))
	broken := errors.New("broken")
	for name, items := range map[string]Items{
		"an object that nothing decodes": ItemsOf(pairs(bad)),
		"an error": func(yield func(json.RawMessage, error) bool) {
			if yield(good[0], nil) {
				yield(nil, broken)
			}
		},
	} {
		l := &List{Kind: "ConfigMapList", APIVersion: "v1", Items: items, Count: 3}
		var b bytes.Buffer
		if err := c.WriteBinary(&b, Form{Media: Protobuf}, l); err == nil || b.Len() > 0 {
			t.Errorf("%s, protobuf: %v, %d bytes", name, err, b.Len())
		}
		if name != "an error" {
			continue // the other forms know no types
		}
		for form, err := range map[string]error{
			"CBOR":     c.WriteBinary(io.Discard, Form{Media: CBOR}, l),
			"JSON":     WriteJSON(io.Discard, []byte("["), items),
			"indented": WriteIndented(io.Discard, []byte(`{"items":[`), items),
		} {
			if !errors.Is(err, broken) {
				t.Errorf("%s, %s: %v", name, form, err)
			}
		}
	}
	n := 0
	changed := func(yield func(json.RawMessage, error) bool) {
		_, items := configMaps(t, 1, keptProtobuf+n) // too large to be kept
		n++
		yield(items[0], nil)
	}
	if err := c.WriteBinary(io.Discard, Form{Media: Protobuf}, &List{Items: changed, Count: 1}); err == nil {
		t.Error("items that have changed since their size was written: no error")
	}
}

// TestIndented compares lists that are indented item by item with the whole indented.
func TestIndented(t *testing.T) {
	for _, items := range [][]json.RawMessage{
		nil,
		{json.RawMessage(`{"a":[],"b":{"c":[1,{"d":"[]"}]}}`)},
		{json.RawMessage(`{}`), json.RawMessage(`{"a":{}}`), json.RawMessage(`{"a":null}`)},
	} {
		head, err := ListHead("ListOf[]", "v1", metav1.ListMeta{ResourceVersion: "7"})
		if err != nil {
			t.Fatal(err)
		}
		var whole, want, got bytes.Buffer
		if err := WriteJSON(&whole, head, ItemsOf(pairs(items))); err != nil {
			t.Fatal(err)
		}
		if err := json.Indent(&want, whole.Bytes(), "", indent); err != nil {
			t.Fatal(err)
		}
		if err := WriteIndented(&got, head, ItemsOf(pairs(items))); err != nil || got.String() != want.String() {
			t.Errorf("%v:\n%s\nwant\n%s", err, got.String(), want.String())
		}
	}
}

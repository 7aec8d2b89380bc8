package media

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// BinaryList returns a list in a binary form. items are the JSON of its objects. They are decoded one after the other, so that a
// large list is never in memory as objects.
func (c *Codec) BinaryList(f Form, kind, apiVersion string, meta metav1.ListMeta, items []json.RawMessage) ([]byte, error) {
	if f.Media == CBOR {
		return c.cborList(f, kind, apiVersion, meta, items)
	}
	return c.protobufList(f, kind, apiVersion, meta, items)
}

// The fields of nearly every list's protobuf message, and of the envelope of a message.
const (
	listMetaTag  = 1<<3 | 2 // metadata, of the wire type with a length
	listItemsTag = 2<<3 | 2 // items
)

// envelope begins every protobuf message of the API.
var envelope = []byte{'k', '8', 's', 0}

func (c *Codec) protobufList(f Form, kind, apiVersion string, meta metav1.ListMeta, items []json.RawMessage) ([]byte, error) {
	head, err := meta.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode list metadata as protobuf: %w", err)
	}
	metaTag, itemsTag := byte(listMetaTag), byte(listItemsTag)
	if apiVersion == metav1beta1.SchemeGroupVersion.String() { // the one message that has them the other way round
		metaTag, itemsTag = itemsTag, metaTag
	}
	raw := field(nil, metaTag, head)
	for _, item := range items {
		obj, err := c.decode(item)
		if err != nil {
			return nil, fmt.Errorf("decode for protobuf: %w", err)
		}
		message, ok := obj.(interface{ Marshal() ([]byte, error) })
		if !ok {
			return nil, fmt.Errorf("encode as protobuf: %T has no such form", obj)
		}
		b, err := message.Marshal()
		if err != nil {
			return nil, fmt.Errorf("encode as protobuf: %w", err)
		}
		raw = field(raw, itemsTag, b)
	}
	whole := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: raw}
	out := make([]byte, len(envelope)+whole.Size())
	copy(out, envelope)
	if _, err := whole.MarshalTo(out[len(envelope):]); err != nil {
		return nil, fmt.Errorf("encode list as protobuf: %w", err)
	}
	return out, nil
}

// field appends a field with a length to a protobuf message.
func field(b []byte, tag byte, value []byte) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(value)))
	return append(b, value...)
}

// selfDescribed is the tag with which each CBOR message begins, and none of its parts.
var selfDescribed = []byte{0xd9, 0xd9, 0xf7}

func (c *Codec) cborList(f Form, kind, apiVersion string, meta metav1.ListMeta, items []json.RawMessage) ([]byte, error) {
	b := bytes.NewBuffer(append([]byte(nil), selfDescribed...))
	b.Write(cborHead(cborMap, 4)) // its keys in CBOR's deterministic order: the shorter first
	if err := cborValues(b, "kind", kind, "items"); err != nil {
		return nil, err
	}
	b.Write(cborHead(cborArray, len(items)))
	for _, item := range items {
		one, err := c.Binary(f, nil, item)
		if err != nil {
			return nil, err
		}
		b.Write(bytes.TrimPrefix(one, selfDescribed))
	}
	if err := cborValues(b, "metadata", meta, "apiVersion", apiVersion); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// cborValues appends values one after the other.
func cborValues(b *bytes.Buffer, values ...any) error {
	for _, v := range values {
		one, err := direct.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode as cbor: %w", err)
		}
		b.Write(one)
	}
	return nil
}

// The major types of CBOR's collections, in the upper three bits.
const (
	cborArray = 4 << 5
	cborMap   = 5 << 5
)

// cborHead returns the first bytes of a collection of n elements.
func cborHead(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major | byte(n)}
	case n < 1<<8:
		return []byte{major | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{major | 25}, uint16(n))
	}
	return binary.BigEndian.AppendUint32([]byte{major | 26}, uint32(n))
}

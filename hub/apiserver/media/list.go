package media

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// Items are the JSON of a list's objects. An error ends them. What makes them can be gone through twice.
type Items = iter.Seq2[json.RawMessage, error]

// ItemsOf returns the items of portions that are made one after the other.
func ItemsOf(portions iter.Seq2[[]json.RawMessage, error]) Items {
	return func(yield func(json.RawMessage, error) bool) {
		for items, err := range portions {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
		}
	}
}

// List is a list that is written item by item: a large one is never in memory as a whole, neither as objects nor encoded.
type List struct {
	Kind, APIVersion string
	Meta             metav1.ListMeta
	Items            Items
	Count            int // of Items
}

// WriteBinary writes a list in a binary form.
func (c *Codec) WriteBinary(w io.Writer, f Form, l *List) error {
	if f.Media == CBOR {
		return c.writeCBOR(w, f, l)
	}
	return c.writeProtobuf(w, l)
}

// The fields of nearly every list's protobuf message, and of the envelope of a message, all of the wire type with a length.
const (
	listMetaTag  = 1<<3 | 2
	listItemsTag = 2<<3 | 2

	envelopeTypeTag     = 1<<3 | 2
	envelopeRawTag      = 2<<3 | 2
	envelopeEncodingTag = 3<<3 | 2
	envelopeMediaTag    = 4<<3 | 2
)

// envelope begins every protobuf message of the API.
var envelope = []byte{'k', '8', 's', 0}

// keptProtobuf is how much of a list's messages is kept until the length of all is known, in bytes. The others are encoded twice.
const keptProtobuf = 8 << 20

// writeProtobuf writes the list's length before its items, so it encodes them before it writes the first byte.
func (c *Codec) writeProtobuf(w io.Writer, l *List) error {
	meta, err := l.Meta.Marshal()
	if err != nil {
		return fmt.Errorf("encode list metadata as protobuf: %w", err)
	}
	metaTag, itemsTag := byte(listMetaTag), byte(listItemsTag)
	if l.APIVersion == metav1beta1.SchemeGroupVersion.String() { // the one list that has them the other way round
		metaTag, itemsTag = itemsTag, metaTag
	}
	start := field(nil, metaTag, meta)
	size, sum := len(start), 0
	var kept [][]byte // the first items, keptProtobuf bytes at most
	for item, err := range l.Items {
		if err != nil {
			return err
		}
		b, err := c.message(item)
		if err != nil {
			return err
		}
		size += 1 + uvarintLen(len(b)) + len(b)
		if sum += len(b); sum <= keptProtobuf {
			kept = append(kept, b)
		}
	}
	gvk := runtime.TypeMeta{APIVersion: l.APIVersion, Kind: l.Kind}
	typ, err := gvk.Marshal()
	if err != nil {
		return fmt.Errorf("encode the type of a list as protobuf: %w", err)
	}
	head := field(bytes.Clone(envelope), envelopeTypeTag, typ)
	head = append(binary.AppendUvarint(append(head, envelopeRawTag), uint64(size)), start...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	if err := c.writeMessages(w, itemsTag, l.Items, kept, size-len(start)); err != nil {
		return err
	}
	_, err = w.Write([]byte{envelopeEncodingTag, 0, envelopeMediaTag, 0})
	return err
}

// writeMessages writes the items as fields with the tag, which take size bytes. kept has the messages of the first ones.
func (c *Codec) writeMessages(w io.Writer, tag byte, items Items, kept [][]byte, size int) error {
	i := 0
	for item, err := range items {
		if err != nil {
			return err
		}
		var b []byte
		if i < len(kept) {
			b, kept[i] = kept[i], nil
		} else if b, err = c.message(item); err != nil {
			return err
		}
		i++
		if size -= 1 + uvarintLen(len(b)) + len(b); size < 0 {
			break
		}
		if _, err := w.Write(binary.AppendUvarint([]byte{tag}, uint64(len(b)))); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if size != 0 {
		return errors.New("encode list as protobuf: its items have changed")
	}
	return nil
}

// message returns the protobuf message of an object.
func (c *Codec) message(item json.RawMessage) ([]byte, error) {
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
	return b, nil
}

// field appends a field with a length to a protobuf message.
func field(b []byte, tag byte, value []byte) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(value)))
	return append(b, value...)
}

// uvarintLen returns how many bytes a length takes.
func uvarintLen(n int) int { return max(1, (bits.Len(uint(n))+6)/7) }

// selfDescribed is the tag with which each CBOR message begins, and none of its parts.
var selfDescribed = []byte{0xd9, 0xd9, 0xf7}

func (c *Codec) writeCBOR(w io.Writer, f Form, l *List) error {
	b := bytes.NewBuffer(bytes.Clone(selfDescribed))
	b.Write(cborHead(cborMap, 4)) // its keys in CBOR's deterministic order: the shorter first
	if err := cborValues(b, "kind", l.Kind, "items"); err != nil {
		return err
	}
	b.Write(cborHead(cborArray, l.Count))
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	for item, err := range l.Items {
		if err != nil {
			return err
		}
		one, err := c.Binary(f, nil, item)
		if err != nil {
			return err
		}
		if _, err := w.Write(bytes.TrimPrefix(one, selfDescribed)); err != nil {
			return err
		}
	}
	b.Reset()
	if err := cborValues(b, "metadata", l.Meta, "apiVersion", l.APIVersion); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
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

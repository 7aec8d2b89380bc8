package openapi

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/proto"
)

// Pack returns a document as it is kept and sent, as gzip'd JSON, and the hash of the JSON.
func Pack(doc any) (packed []byte, tag string, err error) {
	marshal := func() ([]byte, error) { return json.Marshal(doc) }
	if m, ok := doc.(json.Marshaler); ok {
		marshal = m.MarshalJSON // json.Marshal would go through the megabytes again
	}
	raw, err := marshal()
	if err != nil {
		return nil, "", err
	}
	sum := sha512.Sum512(raw)
	packed, err = compress(raw)
	return packed, fmt.Sprintf("%X", sum[:32]), err
}

// Unpack returns the JSON of a document that Pack has made.
func Unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	doc, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return doc, nil
}

// ProtobufV2 returns a packed document of version 2 in its binary form, gzip'd. It takes many times the memory of the document.
func ProtobufV2(packed []byte) ([]byte, error) { return binary(packed, parseV2) }

// parser reads the JSON of a document as the message that its binary form is of.
type parser func(json []byte) (proto.Message, error)

func parseV2(json []byte) (proto.Message, error) { return openapiv2.ParseDocument(json) }

func parseV3(json []byte) (proto.Message, error) { return openapiv3.ParseDocument(json) }

// binary returns a packed document in its binary form, gzip'd.
func binary(packed []byte, parse parser) ([]byte, error) {
	doc, err := Unpack(packed)
	if err != nil {
		return nil, err
	}
	m, err := parse(doc)
	if err != nil {
		return nil, fmt.Errorf("openapi as protobuf: %w", err)
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("openapi as protobuf: %w", err)
	}
	p, err := compress(raw)
	if err != nil {
		return nil, fmt.Errorf("openapi as protobuf: %w", err)
	}
	return p, nil
}

func compress(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(b.Bytes()), nil
}

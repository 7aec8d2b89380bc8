package media

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// Frames writes watch events one after the other, in a form that has been negotiated: lines of JSON, protobuf messages with their
// length before them, or a sequence of CBOR items.
type Frames struct {
	codec *Codec
	form  Form
	w     io.Writer
}

// Frames returns a writer of events to w.
func (c *Codec) Frames(f Form, w io.Writer) *Frames { return &Frames{codec: c, form: f, w: w} }

// Write writes one event; body is the JSON of its object.
func (f *Frames) Write(t watch.EventType, body []byte) error {
	var b []byte
	var err error
	switch f.form.Media {
	case Protobuf:
		b, err = f.protobuf(t, body)
	case CBOR:
		b, err = f.cbor(t, body)
	default:
		return f.json(t, body)
	}
	if err != nil {
		return err
	}
	_, err = f.w.Write(b)
	return err
}

// json writes the pieces as they are: the object is not copied.
func (f *Frames) json(t watch.EventType, body []byte) error {
	for _, piece := range []string{`{"type":"`, string(t), `","object":`} {
		if _, err := io.WriteString(f.w, piece); err != nil {
			return err
		}
	}
	if _, err := f.w.Write(body); err != nil {
		return err
	}
	_, err := io.WriteString(f.w, "}\n")
	return err
}

func (f *Frames) protobuf(t watch.EventType, body []byte) ([]byte, error) {
	obj, err := f.codec.Binary(f.form, nil, body)
	if err != nil {
		return nil, err
	}
	event := metav1.WatchEvent{Type: string(t), Object: runtime.RawExtension{Raw: obj}}
	b, err := event.Marshal() // within a watch, the event has no envelope
	if err != nil {
		return nil, fmt.Errorf("encode event as protobuf: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...), nil
}

func (f *Frames) cbor(t watch.EventType, body []byte) ([]byte, error) {
	obj, err := f.codec.Binary(f.form, nil, body)
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(append([]byte(nil), selfDescribed...))
	b.Write(cborHead(cborMap, 2))
	if err := cborValues(b, "type", string(t), "object"); err != nil {
		return nil, err
	}
	b.Write(bytes.TrimPrefix(obj, selfDescribed))
	return b.Bytes(), nil
}

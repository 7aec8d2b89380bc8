package media

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ListTail ends the JSON of every list.
const ListTail = "]}\n"

// Indentation of JSON for people.
const (
	indent      = "  "
	indentItems = indent + indent // of an item of a list
)

// ListHead returns the JSON of a list before its first item.
func ListHead(kind, apiVersion string, m metav1.ListMeta) ([]byte, error) {
	meta, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode list metadata: %w", err)
	}
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind, apiVersion, meta), nil
}

// WriteJSON writes the JSON of a list, or of what has its items under another name, such as a Table. head is what comes before the first item.
func WriteJSON(w io.Writer, head []byte, items Items) error {
	if _, err := w.Write(head); err != nil {
		return err
	}
	first := true
	for item, err := range items {
		if err != nil {
			return err
		}
		if !first {
			if _, err := io.WriteString(w, ","); err != nil {
				return err
			}
		}
		first = false
		if _, err := w.Write(item); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, ListTail)
	return err
}

// WriteIndented is WriteJSON for people. It writes what json.Indent makes of the whole.
func WriteIndented(w io.Writer, head []byte, items Items) error {
	var b bytes.Buffer
	if err := json.Indent(&b, append(bytes.Clone(head), ListTail...), "", indent); err != nil {
		return fmt.Errorf("indent a list: %w", err)
	}
	at := bytes.LastIndex(b.Bytes(), []byte("[]")) + 1 // the items are last
	tail := string(b.Bytes()[at:])
	if _, err := w.Write(b.Bytes()[:at]); err != nil {
		return err
	}
	before := "\n" + indentItems
	for item, err := range items {
		if err != nil {
			return err
		}
		b.Reset()
		b.WriteString(before)
		if err := json.Indent(&b, item, indentItems, indent); err != nil {
			return fmt.Errorf("indent an item: %w", err)
		}
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
		before = ",\n" + indentItems
	}
	if before[0] == ',' {
		tail = "\n" + indent + tail
	}
	_, err := io.WriteString(w, tail)
	return err
}

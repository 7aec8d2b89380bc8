package audit

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

const (
	// maxBody bounds a body in an event, in bytes. A longer one is left out, with upstream's annotation that says so.
	maxBody = 1 << 20
	// MaxText bounds a body before its managed fields are left out, in bytes: they are most of many lists.
	MaxText             = 4 * maxBody
	annotationTruncated = "audit.k8s.io/truncated"
)

// Object notes the object that the client has sent: what it is about, and its content where the level asks for that.
func (q *Request) Object(obj runtime.Object) {
	if q == nil {
		return
	}
	if m, err := meta.Accessor(obj); err == nil && q.event.ObjectRef != nil {
		ref := q.event.ObjectRef
		if ref.Name == "" {
			ref.Name = m.GetName()
		}
		if ref.Namespace == "" {
			ref.Namespace = m.GetNamespace()
		}
		ref.UID, ref.ResourceVersion = m.GetUID(), m.GetResourceVersion()
	}
	if !q.records(auditinternal.LevelRequest) {
		return
	}
	if text, err := json.Marshal(obj); err == nil { // an object that was decoded has a JSON form
		q.event.RequestObject = q.body(text)
	}
}

// Patch notes the patch that the client has sent. One that is not JSON is left out.
func (q *Request) Patch(text []byte) {
	if q.records(auditinternal.LevelRequest) && json.Valid(text) {
		q.event.RequestObject = q.body(text)
	}
}

// WantsResponse reports whether Response needs the answer.
func (q *Request) WantsResponse() bool { return q.records(auditinternal.LevelRequestResponse) }

// Response notes the answer, as JSON. Only the first one counts.
func (q *Request) Response(text []byte) {
	if q.WantsResponse() && q.event.ResponseObject == nil {
		q.event.ResponseObject = q.body(text)
	}
}

// LongResponse notes that the answer has more than MaxText. The answer may be no more than begun.
func (q *Request) LongResponse() {
	if q.WantsResponse() && q.event.ResponseObject == nil {
		q.annotate(annotationTruncated, "true")
	}
}

func (q *Request) records(level auditinternal.Level) bool {
	return q != nil && q.level.GreaterOrEqual(level)
}

// body returns a body as it goes into the event; nil when it is too long.
func (q *Request) body(text []byte) *runtime.Unknown {
	if len(text) <= MaxText && q.omitManagedFields {
		text = withoutManagedFields(text)
	}
	if len(text) > maxBody {
		q.annotate(annotationTruncated, "true")
		return nil
	}
	// The text may be the store's, or a buffer that is used again.
	return &runtime.Unknown{Raw: append([]byte(nil), text...), ContentType: runtime.ContentTypeJSON}
}

// withoutManagedFields leaves metadata.managedFields out of an object, and of the objects of a list or Table.
func withoutManagedFields(text []byte) []byte {
	var v map[string]any
	if json.Unmarshal(text, &v) != nil {
		return text
	}
	drop := func(obj any) {
		if o, ok := obj.(map[string]any); ok {
			if m, ok := o["metadata"].(map[string]any); ok {
				delete(m, "managedFields")
			}
		}
	}
	drop(v)
	if items, ok := v["items"].([]any); ok {
		for _, item := range items {
			drop(item)
		}
	}
	if rows, ok := v["rows"].([]any); ok {
		for _, row := range rows {
			if r, ok := row.(map[string]any); ok {
				drop(r["object"])
			}
		}
	}
	out, err := json.Marshal(v)
	if err != nil {
		return text
	}
	return out
}

// line returns the event as a line of the file.
func line(e *auditv1.Event) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

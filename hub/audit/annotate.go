package audit

import (
	"context"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
)

// maxAnnotations bounds the annotations of an event, in bytes: webhooks and policies choose keys and values.
const maxAnnotations = 1 << 20

// requestKey is the key of the Request in a context.
type requestKey struct{}

// WithRequest returns a context in which Annotate finds q. For a nil q it is ctx.
func WithRequest(ctx context.Context, q *Request) context.Context {
	if q == nil {
		return ctx
	}
	return context.WithValue(ctx, requestKey{}, q)
}

// Annotate adds an annotation to the event of ctx's request, if that is recorded at level or above. The first value of a key stays,
// as on Kubernetes. It may be called by any goroutine; after the event's last stage it does nothing.
func Annotate(ctx context.Context, level auditinternal.Level, key, value string) {
	if q, _ := ctx.Value(requestKey{}).(*Request); q.records(level) {
		q.annotate(key, value)
	}
}

// Records reports whether ctx's request is recorded at level or above: Annotate has an effect.
func Records(ctx context.Context, level auditinternal.Level) bool {
	q, _ := ctx.Value(requestKey{}).(*Request)
	return q.records(level)
}

// annotate adds an annotation, unless there is one of that key or the event has no room for it.
func (q *Request) annotate(key, value string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, has := q.annotations[key]; has {
		return
	}
	if q.annotations == nil {
		q.annotations = map[string]string{}
	}
	size := len(key) + len(value)
	if q.annotated+size > maxAnnotations {
		q.annotations[annotationTruncated] = "true"
		return
	}
	q.annotated += size
	q.annotations[key] = value
}

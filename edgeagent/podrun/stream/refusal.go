package stream

import (
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/wire"
)

// streamError is why a stream cannot be, with a reason of the API.
type streamError struct {
	reason metav1.StatusReason
	text   string
}

func (e *streamError) Error() string { return e.text }

// badRequest is what the user can mend.
func badRequest(format string, args ...any) error {
	return &streamError{metav1.StatusReasonBadRequest, fmt.Sprintf(format, args...)}
}

// refusal is a failed stream's end. Any other error is the agent's own failure.
func refusal(err error) wire.StreamEnd {
	var e *streamError
	switch {
	case errors.As(err, &e):
		return wire.StreamEnd{Reason: string(e.reason), Message: e.text}
	case errors.Is(err, cruntime.ErrNotFound):
		return wire.StreamEnd{Reason: string(metav1.StatusReasonNotFound), Message: err.Error()}
	}
	return wire.StreamEnd{Reason: string(metav1.StatusReasonInternalError), Message: err.Error()}
}

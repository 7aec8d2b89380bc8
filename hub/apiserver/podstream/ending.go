package podstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"

	"petrel.dev/petrel/internal/wire"
)

// endStatus returns how a stream ended, for a client of exec or attach. status makes a Status of any other error.
func endStatus(err error, status func(error) *metav1.Status) *metav1.Status {
	var end *wire.StreamEnd
	var known apierrors.APIStatus
	switch {
	case err == nil:
		return &metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &known):
		return status(err)
	case errors.As(err, &end) && end.Reason != "":
		return status(reasonError(end))
	case errors.As(err, &end) && end.ExitCode == 0:
		return &metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &end):
		return &metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(end.ExitCode)}}},
			Message: fmt.Sprintf("command terminated with non-zero exit code: exit status %d", end.ExitCode),
		}
	}
	return status(apierrors.NewInternalError(fmt.Errorf("the link to the node broke: %w", err)))
}

// reasonError returns a node's refusal as an API error.
func reasonError(end *wire.StreamEnd) error {
	reason := metav1.StatusReason(end.Reason)
	code := map[metav1.StatusReason]int32{
		metav1.StatusReasonNotFound:           http.StatusNotFound,
		metav1.StatusReasonBadRequest:         http.StatusBadRequest,
		metav1.StatusReasonForbidden:          http.StatusForbidden,
		metav1.StatusReasonConflict:           http.StatusConflict,
		metav1.StatusReasonTimeout:            http.StatusGatewayTimeout,
		metav1.StatusReasonTooManyRequests:    http.StatusTooManyRequests,
		metav1.StatusReasonServiceUnavailable: http.StatusServiceUnavailable,
	}[reason]
	if code == 0 {
		code = http.StatusInternalServerError
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: end.Message}}
}

func statusJSON(s *metav1.Status) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("podstream: a Status has a JSON form: " + err.Error())
	}
	return b
}

package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
)

// statusOf returns an error as a Status with its HTTP code. No other place does that.
func statusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	var s metav1.Status
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		s = known.Status()
	case errors.As(err, &big):
		s = apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", big.Limit)).Status()
	case errors.Is(err, context.DeadlineExceeded):
		s = apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0).Status()
	case errors.Is(err, context.Canceled):
		s = metav1.Status{Code: 499, Reason: metav1.StatusReasonUnknown, Message: "the client went away"}
	default:
		s = metav1.Status{Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	}
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if s.Status == "" {
		s.Status = metav1.StatusFailure
	}
	if s.Code == 0 {
		s.Code = http.StatusInternalServerError
	}
	return &s
}

// fail answers with err's Status.
func (x *exchange) fail(err error) {
	s := statusOf(err)
	x.audit.Fail(s)
	if s.Code >= 500 {
		x.s.Log.Warn("request failed", "method", x.r.Method, "path", x.r.URL.Path, "code", s.Code, "error", err)
	}
	h := x.w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	if s.Code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="petrel"`)
	}
	body, err := json.Marshal(s)
	if err != nil {
		panic("apiserver: a Status has a JSON form: " + err.Error())
	}
	out := media.NegotiateError(x.r)
	x.writeBody(int(s.Code), out, append(body, '\n'))
}

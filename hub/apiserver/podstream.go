package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"

	"petrel.dev/petrel/internal/wire"
)

// serveStream answers the subresources that are bytes from a node.
func (s *server) serveStream(x *exchange) {
	if s.Streams == nil {
		x.fail(apierrors.NewServiceUnavailable("this hub has no link to its nodes"))
		return
	}
	ctx, cancel := s.untilClosing(x.ctx)
	defer cancel()
	x.ctx = ctx
	pod, err := x.pod()
	if err != nil {
		x.fail(err)
		return
	}
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()
	switch x.t.Subresource {
	case "log":
		x.podLog(pod)
	case "exec":
		x.remoteCommand(pod, wire.StreamExec)
	case "attach":
		x.remoteCommand(pod, wire.StreamAttach)
	case "portforward":
		x.portForward(pod)
	default:
		x.fail(errNoSuchPath())
	}
}

func (x *exchange) pod() (*corev1.Pod, error) {
	t := x.t
	t.Subresource = ""
	res, err := x.s.Verbs.Get(x.ctx, t, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if p, ok := res.Object.(*corev1.Pod); ok {
		return p, nil
	}
	p := &corev1.Pod{}
	if err := json.Unmarshal(res.JSON, p); err != nil {
		return nil, fmt.Errorf("decode stored pod: %w", err)
	}
	return p, nil
}

// containerOf is the container that is meant: the named one, or the only one.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var names, inits []string
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	if name != "" {
		for _, n := range append(names, inits...) {
			if n == name {
				return name, nil
			}
		}
		for _, c := range pod.Spec.EphemeralContainers {
			if c.Name == name {
				return name, nil
			}
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
	}
	msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " "))
	if len(inits) > 0 {
		msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
	}
	return "", apierrors.NewBadRequest(msg)
}

// open asks the pod's node for a stream.
func (x *exchange) open(ctx context.Context, pod *corev1.Pod, req wire.StreamRequest) (wire.Stream, error) {
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	req.PodUID, req.Namespace, req.Pod = string(pod.UID), pod.Namespace, pod.Name
	return x.s.Streams.OpenStream(ctx, pod.Spec.NodeName, req)
}

// boolQuery reads a flag of the query as upstream's conversion does: present and empty, or "true", or "1".
func (x *exchange) boolQuery(key string) bool {
	v, ok := x.query[key]
	if !ok || len(v) == 0 {
		return false
	}
	switch strings.ToLower(v[0]) {
	case "false", "0":
		return false
	}
	return true
}

// endStatus is how an ended stream is told to a client of exec or attach.
func endStatus(err error) *metav1.Status {
	var end *wire.StreamEnd
	var known apierrors.APIStatus
	switch {
	case err == nil:
		return &metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &known):
		return statusOf(err)
	case errors.As(err, &end) && end.Reason != "":
		return statusOf(reasonError(end))
	case errors.As(err, &end) && end.ExitCode == 0:
		return &metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &end):
		return &metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(end.ExitCode)}}},
			Message: fmt.Sprintf("command terminated with non-zero exit code: exit status %d", end.ExitCode),
		}
	}
	return statusOf(apierrors.NewInternalError(fmt.Errorf("the link to the node broke: %w", err)))
}

// reasonError is a node's refusal as an API error.
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

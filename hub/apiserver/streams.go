package apiserver

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/apiserver/podstream"
	"petrel.dev/petrel/hub/resource"
)

// serveStream answers the subresources that are bytes from a node.
func (s *server) serveStream(x *exchange) {
	if s.streams == nil {
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
	if err := x.admitStream(); err != nil {
		x.fail(err)
		return
	}
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()
	s.streams.Serve(podstream.Request{W: x.w, R: x.r.WithContext(ctx), Pod: pod, Subresource: x.t.Subresource, Fail: x.fail})
}

// admitStream asks admission about a stream. Logs are read, which is not admitted.
func (x *exchange) admitStream() error {
	if !slices.Contains(x.sub.Verbs, "create") {
		return nil
	}
	options := x.sub.New()
	if err := resource.Scheme().Convert(&x.query, options, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return x.s.Verbs.Connect(warning.WithWarningRecorder(x.ctx, x), x.t, options)
}

// pod returns the one that the request names, shared: read-only.
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

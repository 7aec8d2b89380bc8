package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/apiserver/podstream"
	"petrel.dev/petrel/hub/apiserver/proxy"
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
	pod, err := x.pod(x.t.Name)
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
	options, query := x.sub.New(), x.query
	if x.sub.Proxy { // its query is the workload's
		_, path, _ := strings.Cut(x.r.URL.Path, "/"+x.t.Name+"/"+x.t.Subresource)
		query = url.Values{"path": {path}}
	}
	if err := resource.Scheme().Convert(&query, options, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return x.s.Verbs.Connect(warning.WithWarningRecorder(x.ctx, x), x.t, options)
}

// proxyMethods are the methods that go on to workloads, as on Kubernetes.
var proxyMethods = []string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions,
}

// proxied reports whether what is below a subresource of k is a workload's.
func proxied(k *resource.Kind, subresource string) bool {
	sub := k.Subresources[subresource]
	return sub != nil && sub.Proxy
}

// serveProxy passes a request on to a pod, a Service or a node.
func (s *server) serveProxy(x *exchange) {
	if s.proxy == nil {
		x.fail(apierrors.NewServiceUnavailable("this hub has no link to its nodes"))
		return
	}
	ctx, cancel := s.untilClosing(x.ctx)
	defer cancel()
	x.ctx = ctx
	if err := x.admitStream(); err != nil {
		x.fail(err)
		return
	}
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()
	s.proxy.Serve(proxy.Request{W: x.w, R: x.r.WithContext(ctx), Plural: x.t.Kind.Plural, Namespace: x.t.Namespace, ID: x.t.Name, Pod: x.pod, Fail: x.fail})
}

// pod returns the pod of that name in the request's namespace, shared: read-only.
func (x *exchange) pod(name string) (*corev1.Pod, error) {
	t := x.t
	t.Name, t.Subresource = name, ""
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

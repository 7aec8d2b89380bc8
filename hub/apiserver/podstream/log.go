package podstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// firstBytes is how long a followed log may stay silent before the answer begins. Until then an error of the node can still
// become an HTTP error.
const firstBytes = 2 * time.Second

// log answers with what a container has written.
func (x *stream) log() {
	if x.R.Method != http.MethodGet && x.R.Method != http.MethodHead {
		x.Fail(apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, x.R.Method, corev1.Resource("pods"), "", "", 0, false))
		return
	}
	opts, err := x.logOptions()
	if err != nil {
		x.Fail(err)
		return
	}
	var out logSink = &httpLog{x: x}
	if x.upgradeOf() == "websocket" {
		ctx, cancel := context.WithCancel(x.ctx)
		defer cancel()
		x.ctx = ctx
		out = &webSocketLog{x: x, gone: cancel}
	}
	defer out.close()
	if x.Pod.Spec.NodeName == "" { // not on a node yet: nothing has been written
		if out.begin() == nil {
			out.end()
		}
		return
	}
	body, err := json.Marshal(opts)
	if err != nil {
		x.Fail(err)
		return
	}
	st, err := x.open(x.ctx, wire.StreamRequest{Kind: wire.StreamLogs, Container: opts.Container, Log: body})
	if err != nil {
		x.Fail(err)
		return
	}
	defer func() { _ = st.Close(wire.StreamEnd{}) }()
	x.copyLog(st, opts, out)
}

// piece is one message of a log stream: bytes, or its end.
type piece struct {
	data []byte
	err  error
}

func (x *stream) copyLog(st wire.Stream, opts *corev1.PodLogOptions, out logSink) {
	pieces := make(chan piece)
	done := make(chan struct{})
	defer close(done)
	go contain.Go(x.Log, "hub/apiserver/podstream/log", x.key(), func() { x.receiveLog(st, pieces, done) })
	left := int64(-1)
	if opts.LimitBytes != nil {
		left = *opts.LimitBytes
	}
	var begin <-chan time.Time
	if opts.Follow {
		t := time.NewTimer(firstBytes)
		defer t.Stop()
		begin = t.C
	}
	begun := false
	start := func() bool {
		if !begun {
			begun = true
			return out.begin() == nil
		}
		return true
	}
	for {
		select {
		case <-begin:
			begin = nil
			if !start() {
				return
			}
		case p, ok := <-pieces:
			if !ok {
				return
			}
			if p.err != nil {
				x.endLog(p.err, begun, out)
				return
			}
			if !start() {
				return
			}
			if left >= 0 && int64(len(p.data)) > left {
				p.data = p.data[:left]
			}
			if out.write(p.data, opts.Follow) != nil {
				return
			}
			if left >= 0 {
				if left -= int64(len(p.data)); left == 0 {
					out.end()
					return
				}
			}
		}
	}
}

// receiveLog passes on what the node sends, until the stream ends or done is closed.
func (x *stream) receiveLog(st wire.Stream, pieces chan<- piece, done <-chan struct{}) {
	defer close(pieces)
	for {
		_, data, err := st.Recv(x.ctx)
		if err == nil && data == nil {
			continue // a channel ended; the stream's own end follows
		}
		select {
		case pieces <- piece{data, err}:
		case <-x.ctx.Done():
			return
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// endLog ends the answer as the log ended. Once bytes have been sent, only a broken connection can show that the link
// broke.
func (x *stream) endLog(err error, begun bool, out logSink) {
	var end *wire.StreamEnd
	switch {
	case errors.As(err, &end) && end.Reason == "":
		if begun || out.begin() == nil {
			out.end()
		}
	case x.ctx.Err() != nil:
	case begun:
		x.Log.Info("log stream broke", "path", x.R.URL.Path, "error", err)
		out.abort()
	case end != nil:
		x.Fail(reasonError(end))
	default:
		x.Fail(apierrors.NewServiceUnavailable("the link to the node broke: " + err.Error()))
	}
}

// logOptions reads the query of a log request.
func (x *stream) logOptions() (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{
		Follow: x.boolQuery("follow"), Previous: x.boolQuery("previous"), Timestamps: x.boolQuery("timestamps"),
		InsecureSkipTLSVerifyBackend: x.boolQuery("insecureSkipTLSVerifyBackend"),
	}
	var errs field.ErrorList
	for key, to := range map[string]**int64{"sinceSeconds": &o.SinceSeconds, "tailLines": &o.TailLines, "limitBytes": &o.LimitBytes} {
		s := x.query.Get(key)
		if s == "" {
			continue
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		*to = &n
		switch {
		case key == "tailLines" && n < 0:
			errs = append(errs, field.Invalid(field.NewPath(key), n, "must be greater than or equal to 0"))
		case key != "tailLines" && n < 1:
			errs = append(errs, field.Invalid(field.NewPath(key), n, "must be greater than 0"))
		}
	}
	if s := x.query.Get("sinceTime"); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		o.SinceTime = &metav1.Time{Time: t}
		if o.SinceSeconds != nil {
			errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
		}
	}
	if s := x.query.Get("stream"); s != "" && s != corev1.LogStreamAll {
		if s != corev1.LogStreamStdout && s != corev1.LogStreamStderr {
			errs = append(errs, field.NotSupported(field.NewPath("stream"), s, []string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}))
		} else if o.TailLines != nil {
			errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
		}
		o.Stream = &s
	}
	if len(errs) > 0 {
		return nil, kube.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), x.Pod.Name, errs)
	}
	var err error
	o.Container, err = containerOf(x.Pod, x.query.Get("container"))
	return o, err
}

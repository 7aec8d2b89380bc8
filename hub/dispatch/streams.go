package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// maxStreams is how many streams one node serves at a time.
const maxStreams = 64

// partingTime is how long the end of a stream that was closed before its node began to serve it can still reach the node.
const partingTime = 30 * time.Second

// OpenStream opens a stream to a pod on a node. Its errors are statuses.
func (d *Dispatch) OpenStream(ctx context.Context, nodeName string, req wire.StreamRequest) (wire.Stream, error) {
	type answer struct {
		s   wire.Stream
		err error
	}
	got := make(chan answer, 1)
	d.call(func(time.Time) {
		a := answer{err: apierrors.NewInternalError(errors.New("opening the stream caused a panic; the hub's log has it"))}
		defer func() { got <- a }() // also after a panic: the caller waits
		e, err := d.openStream(nodeName, req)
		if a.err = err; err == nil {
			a.s = e
		}
	})
	select {
	case a := <-got:
		return a.s, a.err
	case <-ctx.Done():
		go func() { // a stream that is opened after this is not used
			if a := <-got; a.s != nil {
				_ = a.s.Close(wire.StreamEnd{Reason: "Cancelled", Message: "the caller went away"})
			}
		}()
		return nil, ctx.Err()
	}
}

func (d *Dispatch) openStream(name string, req wire.StreamRequest) (*wire.Endpoint, error) {
	n := d.session(name)
	if n == nil {
		if _, ok := d.cfg.Client.Get(kube.Node, "", name); !ok {
			return nil, apierrors.NewNotFound(kube.Node.GroupVersion().WithResource("nodes").GroupResource(), name)
		}
		return nil, d.darkError(name)
	}
	if len(n.streams) >= maxStreams {
		return nil, apierrors.NewTooManyRequests(fmt.Sprintf("node %s serves %d streams already; close some and try again", name, maxStreams), 5)
	}
	b, err := json.Marshal(req)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o := &wire.Open{Stream: randomHex(6), Request: b}
	_, _ = rand.Read(o.Key[:]) // never fails
	topic := wire.StreamDown(d.cfg.Keys.ClusterID, n.id, o.Stream)
	e := wire.NewEndpoint(o.Key, true, func(frame []byte) { d.cfg.Bus.Publish(topic, frame) })
	n.streams[o.Stream] = e
	d.inbox.streams.add(n.id, o.Stream, e)
	n.current.s.OpenStream(o)
	d.enqueue(n, n.current)
	go func() {
		<-e.Done()
		d.call(func(time.Time) {
			if n.streams[o.Stream] != e {
				return
			}
			delete(n.streams, o.Stream)
			if e.Unheard() {
				time.AfterFunc(partingTime, func() { d.inbox.streams.remove(n.id, o.Stream) })
				return
			}
			d.inbox.streams.remove(n.id, o.Stream)
		})
	}()
	return e, nil
}

// darkError names the node that cannot be reached, and since when.
func (d *Dispatch) darkError(name string) error {
	since := "it has not been heard of since this hub started"
	if _, last := d.Presence(name); !last.IsZero() {
		since = "it was last heard of at " + last.UTC().Format(time.RFC3339)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: fmt.Sprintf("node %s cannot be reached: %s; its pods go on running, logs and exec work again when it is back", name, since),
	}}
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

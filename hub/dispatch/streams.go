package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/dispatch/roster"
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
		return nil, d.absent(name)
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

// Absent returns why a node cannot be asked for anything now, as a Status: NotFound when there is no such Node, otherwise
// ServiceUnavailable, with when it was last seen and what works all the same. Nil when it is connected.
func (d *Dispatch) Absent(name string) error {
	if connected, _ := d.Presence(name); connected {
		return nil
	}
	return d.absent(name)
}

// absent is the error about a node without a session. It is never nil.
func (d *Dispatch) absent(name string) error {
	o, ok := d.cfg.Client.Get(kube.Node, "", name)
	if !ok {
		return apierrors.NewNotFound(kube.Node.GroupVersion().WithResource("nodes").GroupResource(), name)
	}
	_, last := d.Presence(name)
	return roster.Absent(o.(*corev1.Node), last, time.Now())
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/seldom"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

const (
	maxHubEvents    = 256 // that wait to be written
	eventEvery      = time.Hour
	maxEventKeys    = 4096
	maxEventMessage = 1024 // bytes of an Event's message, as with the API
)

// nodeEvents writes the hub's own Events about nodes. It is not control.Recorder, for two reasons. An unknown device or a node can
// cause them as often as it likes, so one of each reason in an hour is written for a Node, whatever its message, where the
// recorder counts repetitions. And a written Event proves to the intake that the store accepts writes (see verdict), so the
// intake writes them itself.
type nodeEvents struct {
	client control.Client
	log    *slog.Logger
	wake   func() // makes the intake call write soon

	mu      sync.Mutex
	seldom  seldom.Seldom   // by node and reason; and log lines, by node and kind; guarded by mu
	waiting []*corev1.Event // at most maxHubEvents; guarded by mu
	writing bool            // write was begun and has not ended; guarded by mu
	written uint64          // since done was called; guarded by mu
}

func newNodeEvents(client control.Client, log *slog.Logger, wake func()) *nodeEvents {
	return &nodeEvents{client: client, log: log, wake: wake, seldom: seldom.New(eventEvery, maxEventKeys)}
}

// allow reports whether a log line under a key is due again.
func (e *nodeEvents) allow(now time.Time, key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seldom.Allow(now, key)
}

// add queues a warning about a Node, at most one of each reason in an hour.
func (e *nodeEvents) add(now time.Time, node, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) >= maxHubEvents || !e.seldom.Allow(now, node+"/"+reason) {
		return
	}
	at := metav1.NewTime(now)
	if len(message) > maxEventMessage {
		message = message[:maxEventMessage-3] + "..."
	}
	ev := &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: node + "." + randomHex(8)},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
		Reason:         reason, Message: message, Type: corev1.EventTypeWarning, Count: 1,
		FirstTimestamp: at, LastTimestamp: at, Source: corev1.EventSource{Component: "petrel-dispatch"},
	}
	if o, ok := e.client.Get(kube.Node, "", node); ok {
		ev.InvolvedObject.UID = o.GetUID()
	}
	e.waiting = append(e.waiting, ev)
	e.wake()
}

// begin reports whether there is something to write that nobody writes: then the caller calls write.
func (e *nodeEvents) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.writing || len(e.waiting) == 0 {
		return false
	}
	e.writing = true
	return true
}

// done returns how many were written since it was last called.
func (e *nodeEvents) done() (written uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	written, e.written = e.written, 0
	return written
}

// write writes what waits. It comes after begin.
func (e *nodeEvents) write(ctx context.Context) {
	var written uint64
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.written, e.writing = e.written+written, false
	}()
	e.mu.Lock()
	events := e.waiting
	e.waiting = nil
	e.mu.Unlock()
	for _, ev := range events {
		err := contain.Do(e.log, "dispatch/event", ev.InvolvedObject.Name, func() error {
			_, err := e.client.Create(ctx, ev)
			return err
		})
		if err == nil {
			written++
		} else if ctx.Err() == nil {
			e.log.Warn("event about a node not written", "reason", ev.Reason, "node", ev.InvolvedObject.Name, "error", err)
		}
	}
}

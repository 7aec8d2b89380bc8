// Package podevent makes Events of what happens to the pods of a node, few of them however often it happens.
package podevent

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Recorder makes Events of what happens to pods. Equal ones become one with a count; that is sent when the count has
// doubled or five minutes have passed, so that a pod in a crash loop does not keep the link busy. It remembers the
// newest keptEvents of them. Any goroutine may use it.
type Recorder struct {
	node   string
	report func(wire.Object) error
	now    func() time.Time
	log    *slog.Logger

	mu    sync.Mutex               // guards what follows
	known map[eventKey]*knownEvent // at most keptEvents
	order []eventKey               // of known, the oldest first
}

// New returns a Recorder of a node's events, which report sends.
func New(node string, report func(wire.Object) error, now func() time.Time, log *slog.Logger) *Recorder {
	return &Recorder{node: node, report: report, now: now, log: log, known: map[eventKey]*knownEvent{}}
}

const (
	keptEvents  = 256
	eventResend = 5 * time.Minute
)

// eventKey is what makes two events equal.
type eventKey struct {
	pod                    types.UID
	field, reason, message string
}

// knownEvent is an event with its count.
type knownEvent struct {
	event corev1.Event
	sent  time.Time
	next  int32 // count at which to send again
}

// Record records an event of a pod, or of one of its containers when c is not nil.
func (r *Recorder) Record(pod *corev1.Pod, c *corev1.Container, kind, reason, format string, args ...any) {
	field := ""
	if c != nil {
		field = "spec.containers{" + c.Name + "}"
		for _, ic := range pod.Spec.InitContainers {
			if ic.Name == c.Name {
				field = "spec.initContainers{" + c.Name + "}"
			}
		}
	}
	if c != nil && kube.EphemeralContainerNamed(pod, c.Name) != nil {
		field = "spec.ephemeralContainers{" + c.Name + "}"
	}
	message := fmt.Sprintf(format, args...)
	if len(message) > 1024 {
		message = message[:1021] + "..."
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	key := eventKey{pod.UID, field, reason, message}
	k := r.known[key]
	if k == nil {
		k = &knownEvent{next: 1, event: corev1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: fmt.Sprintf("%s.%x", pod.Name, now.UnixNano()),
				UID: uuid.NewUUID(), CreationTimestamp: kube.Timestamp(now)},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
				ResourceVersion: pod.ResourceVersion, FieldPath: field},
			Type: kind, Reason: reason, Message: message, FirstTimestamp: kube.Timestamp(now),
			Source:              corev1.EventSource{Component: "kubelet", Host: r.node},
			ReportingController: "kubelet", ReportingInstance: r.node,
		}}
		r.known[key] = k
		r.order = append(r.order, key)
		if len(r.order) > keptEvents {
			delete(r.known, r.order[0])
			r.order = r.order[1:]
		}
	}
	k.event.Count++
	k.event.LastTimestamp = kube.Timestamp(now)
	if k.event.Count < k.next && now.Sub(k.sent) < eventResend {
		return
	}
	k.sent, k.next = now, k.event.Count*2
	data, err := json.Marshal(&k.event)
	if err == nil {
		err = r.report(wire.Object{ID: wire.ID{Kind: wire.KindEvent, UID: string(k.event.UID)}, Version: uint64(k.event.Count),
			Namespace: k.event.Namespace, Name: k.event.Name, Data: data})
	}
	if err != nil {
		r.log.Warn("event not reported", "pod", pod.Name, "reason", reason, "error", err)
	}
}

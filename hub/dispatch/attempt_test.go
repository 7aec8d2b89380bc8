package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// hooked is a store before which a webhook with failurePolicy Fail admits the statuses of pods named "bad…", and hangs while down.
type hooked struct {
	control.Client
	mu   sync.Mutex
	down bool // guarded by mu
}

const hookTimeout = 10 * time.Second

func (h *hooked) Commit(ctx context.Context, writes []control.Write) error {
	h.mu.Lock()
	down := h.down
	h.mu.Unlock()
	for _, w := range writes {
		if _, ok := w.Object.(*corev1.Pod); !ok || !down || w.Object.GetName()[:3] != "bad" {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(hookTimeout):
		}
		return apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: failed to call webhook: context deadline exceeded", "h.example.com"))
	}
	return h.Client.Commit(ctx, writes)
}

// TestHangingWebhookHoldsUpItsOwnNodes lets a webhook hang over the pods of forty nodes: another node's reports are written all the same,
// within seconds and then at once, and what the webhook held up is written when it is back.
func TestHangingWebhookHoldsUpItsOwnNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var objs []kube.Object
		podOf := func(name, node string) {
			objs = append(objs, &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: node}}, &corev1.Pod{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{NodeName: node},
			})
		}
		podOf("fine", "good")
		const bad = 40
		for k := range bad {
			podOf(fmt.Sprintf("bad%d", k), fmt.Sprintf("n%d", k))
		}
		fake := controltest.New(t, objs...)
		h := &hooked{Client: fake, down: true}
		r := &reporters{t: t, client: fake, in: newIntake(h, wire.Settings{}, slog.New(slog.DiscardHandler))}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = r.in.run(ctx) }()

		var answered []*bool
		for k := range bad {
			answered = append(answered, r.say(fmt.Sprintf("n%d", k), r.podStatus(fmt.Sprintf("bad%d", k), corev1.PodStatus{Phase: corev1.PodRunning})))
		}
		said := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning}))
		time.Sleep(2 * (togetherTime + patience)) // in two rounds at most it is seen
		synctest.Wait()
		if !*said {
			t.Fatal("a node that no webhook concerns waits for the others'")
		}
		for k := range 60 {
			said := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning, Reason: fmt.Sprint(k)}))
			time.Sleep(2 * patience)
			synctest.Wait()
			if !*said {
				t.Fatalf("report %d waits, while it is known which nodes are slow", k)
			}
		}
		for k, a := range answered {
			if !*a {
				t.Errorf("node n%d is never answered, and can report nothing else", k)
			}
		}
		time.Sleep(time.Hour) // a long outage
		h.mu.Lock()
		h.down = false
		h.mu.Unlock()
		time.Sleep(attemptTime + heldUpRetry)
		synctest.Wait()
		for k := range bad {
			if got := r.pod(fmt.Sprintf("bad%d", k)).Status.Phase; got != corev1.PodRunning {
				t.Errorf("pod bad%d is %q after the webhook is back", k, got)
			}
		}
		if r.in.asideBytes != 0 || r.in.trying != 0 {
			t.Errorf("%d bytes are set aside, %d attempts go on", r.in.asideBytes, r.in.trying)
		}
		cancel()
		<-ended
	})
}

// TestEventsThatAWebhookHoldsUp checks that a node's statuses do not wait long behind its Events.
func TestEventsThatAWebhookHoldsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		r.client.Refuse = func(_ string, obj kube.Object, _ string) error {
			if _, ok := obj.(*corev1.Event); ok {
				return apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: connection refused", "h.example.com"))
			}
			return nil
		}
		said := r.say("evil", r.event("e", "bad"), r.podStatus("bad", corev1.PodStatus{Phase: corev1.PodRunning}))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !*said || r.pod("bad").Status.Phase != corev1.PodRunning {
			t.Error("a status waits behind an Event that no webhook admits")
		}
	})
}

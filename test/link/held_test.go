package link_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/wire"
)

// maker makes tokens as fast, as slowly or as badly as a test says.
type maker func(ctx context.Context) error

func (m maker) IssueToken(ctx context.Context, _ *corev1.ServiceAccount, _ satoken.Bound, _ []string, life time.Duration) (string, time.Time, error) {
	return "token", time.Now().Add(life), m(ctx)
}

func podID(name string) wire.ID   { return wire.ID{Kind: wire.KindPod, UID: "uid-" + name} }
func tokenID(name string) wire.ID { return wire.ID{Kind: wire.KindToken, UID: "uid-" + name + "/"} }

// newHeld is a hub with one node and a ServiceAccount.
func newHeld(t *testing.T, m maker) *silent {
	s := newSilent(t, true, m)
	s.client.Put(&corev1.ServiceAccount{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"},
	})
	synctest.Wait()
	return s
}

func (s *silent) holds(id wire.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has[id]
}

// A node never has a pod without its token, whether the pod comes while it is connected or while it is away.
func TestPodComesWithItsToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newHeld(t, func(ctx context.Context) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		s.set(func() {
			s.batch = func() {
				for id := range s.has {
					if name := strings.TrimPrefix(id.UID, "uid-"); id.Kind == wire.KindPod && !s.has[tokenID(name)] {
						t.Errorf("the node has pod %s without its token", name)
					}
				}
			}
		})
		s.client.Put(pod("web", "n1", withToken))
		s.pass(time.Second)
		if !s.holds(podID("web")) {
			t.Fatal("the pod did not come")
		}
		s.lost()
		s.client.Put(pod("web2", "n1", withToken))
		s.pass(time.Second)
		s.connect()
		s.pass(time.Second)
		if !s.holds(podID("web2")) {
			t.Error("the pod that was made meanwhile did not come")
		}
	})
}

// A token that is not made holds its pod up for five seconds, one that cannot be made does not; and a pod that the node
// has is not taken from it.
func TestPodComesWithoutAToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newHeld(t, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		s.client.Put(pod("web", "n1", withToken))
		s.pass(4 * time.Second)
		if s.holds(podID("web")) {
			t.Error("the pod came before its token")
		}
		s.pass(2 * time.Second)
		if !s.holds(podID("web")) {
			t.Fatal("the pod is held up for ever")
		}
		s.set(func() {
			s.batch = func() {
				if !s.has[podID("web")] {
					t.Error("a pod was taken from the node because its token is still to be made")
				}
			}
		})
		s.lost()
		s.client.Put(pod("web2", "n1"))
		s.pass(time.Second)
		s.connect()
		s.pass(time.Second)
		if !s.holds(podID("web2")) {
			t.Error("the pod that was made meanwhile did not come")
		}
	})
	bubble(t, func(t *testing.T) {
		s := newHeld(t, func(context.Context) error { return errors.New("no key") })
		s.client.Put(pod("web", "n1", withToken))
		s.pass(time.Second)
		if !s.holds(podID("web")) {
			t.Error("the pod waits for a token that cannot be made")
		}
	})
}

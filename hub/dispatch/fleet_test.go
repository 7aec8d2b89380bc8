package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
)

// roomFor is a client of a hub that takes so many nodes, as `petrel hub --max-nodes` says.
type roomFor struct {
	control.Client
	nodes   int
	refused *atomic.Int64
}

func (r roomFor) Commit(ctx context.Context, writes []control.Write) error {
	for _, w := range writes {
		if n, ok := w.Object.(*corev1.Node); ok && w.Old == nil && len(r.List(kube.Node, "")) >= r.nodes {
			r.refused.Add(1)
			return apierrors.NewForbidden(corev1.Resource("nodes"), n.Name, errors.New("this hub takes only so many nodes"))
		}
	}
	return r.Client.Commit(ctx, writes)
}

// TestLeakedToken has many made-up devices join with an unlimited token: the hub takes as many as it may have, refuses the others and
// writes nothing for them, and keeps room for those that it knows.
func TestLeakedToken(t *testing.T) {
	const room, many = 20, 300
	keys := newKeys(t)
	token, secret, err := jointoken.Mint(jointoken.Cluster{ID: keys.ClusterID, Addresses: []string{"hub:6443"}, Key: keys.Static.Public}, jointoken.Options{}, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	secret.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	known := newDevice(t, keys)
	hub, b := hubOf(t, keys, secret, known.node("n"))
	store := hub.cfg.Client.(*controltest.Client)
	full, refused := make(chan struct{}), new(atomic.Int64)
	hub.call(func(time.Time) { hub.joins.client = roomFor{hub.cfg.Client, room, refused}; close(full) })
	<-full
	for i := range many {
		d := newDevice(t, keys)
		d.hello.Node, d.hello.TokenID, d.hello.Secret = fmt.Sprint("made-up-", i), token.TokenID, token.Secret
		within(t, fmt.Sprintf("the hub has a handshake left for device %d", i), func() bool {
			b.receive(d.up(), d.init.Knock())
			return b.challenge(d) != nil
		})
		hello, _, err := d.init.Challenge(b.challenge(d), &d.hello)
		if err != nil {
			t.Fatal(err)
		}
		b.receive(d.up(), hello)
	}
	within(t, "the hub has its nodes, and has refused most of the others", func() bool {
		return len(store.Stored(kube.Node, "")) == room && refused.Load() > (many-room)/2
	})
	known.join(t, hub, b, "n")
	if n := len(store.Stored(kube.Node, "")); n != room {
		t.Errorf("%d nodes, want %d", n, room)
	}
	left := make(chan int)
	hub.call(func(time.Time) { left <- len(hub.pending) })
	if n := <-left; n > maxStrangers {
		t.Errorf("%d strangers are kept, %d are the limit", n, maxStrangers)
	}
	if w := store.Writes(); len(w) > 3*room {
		t.Errorf("%d writes for %d nodes and %d refusals", len(w), room, many-room)
	}
}

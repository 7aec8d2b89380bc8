package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	// The lifetime that Kubernetes' admission asks for in every pod means "as usual". Renewing it hourly would cost a
	// node with ten pods more traffic than all else together, so usual means a day here.
	usualSeconds  = 3607
	usualLifetime = 24 * time.Hour
	minLifetime   = 10 * time.Minute
	tokenRetry    = 15 * time.Second
	tokenWorkers  = 4
)

// saToken is a ServiceAccount token of one pod for one audience. Its Version on the wire is its expiry, so that a hub that
// has forgotten it (or never made it) can tell from the node's map what the node holds, and need not make another.
type saToken struct {
	id       wire.ID
	pod      *corev1.Pod
	audience string
	lifetime time.Duration

	obj     *wire.Object // nil: none, or only on the node
	expires time.Time    // zero: none
	issuing bool
	retry   time.Time
}

// due is when the token is to be renewed: at 80 % of its life.
func (t *saToken) due() time.Time {
	if t.expires.IsZero() {
		return t.retry
	}
	due := t.expires.Add(-t.lifetime / 5)
	if t.retry.After(due) {
		return t.retry
	}
	return due
}

// placeholder stands for a token that only the node holds. It must never be sent: it is in a set only while the node has
// exactly this version.
func (t *saToken) placeholder() *wire.Object {
	return &wire.Object{ID: t.id, Version: uint64(t.expires.Unix()), Namespace: t.pod.Namespace, Name: t.pod.Name}
}

// wantTokens has a pod's tokens exist.
func (s *desired) wantTokens(n *node, p *corev1.Pod) {
	if s.d.cfg.Tokens == nil {
		return
	}
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Projected == nil {
			continue
		}
		for _, src := range p.Spec.Volumes[i].Projected.Sources {
			if src.ServiceAccountToken == nil {
				continue
			}
			uid := string(p.UID) + "/" + src.ServiceAccountToken.Audience
			if t := n.tokens[uid]; t != nil {
				t.pod = p
				continue
			}
			t := &saToken{
				id: wire.ID{Kind: wire.KindToken, UID: uid}, pod: p, audience: src.ServiceAccountToken.Audience,
				lifetime: lifetime(src.ServiceAccountToken.ExpirationSeconds),
			}
			n.tokens[uid] = t
			// During compose nothing is known yet of what the node has; accepted or have decide.
			if n.current != nil && n.current.s.Open() {
				s.issue(n, t)
			}
		}
	}
}

func lifetime(seconds *int64) time.Duration {
	if seconds == nil || *seconds == usualSeconds {
		return usualLifetime
	}
	return max(kube.Seconds(*seconds), minLifetime)
}

func (s *desired) dropTokens(n *node, uid types.UID) {
	for key, t := range n.tokens {
		if t.pod.UID == uid {
			s.remove(n, t.id)
			delete(n.tokens, key)
		}
	}
}

// keepTokens forgets tokens of pods that went while the node was dark, and what only an agent knew that has lost all.
func (s *desired) keepTokens(n *node, have wire.Hash) {
	for key, t := range n.tokens {
		if s.pods[n.name][t.pod.UID] == nil {
			delete(n.tokens, key)
		} else if t.obj == nil && have.IsZero() {
			t.expires = time.Time{}
		}
	}
}

// placeTokens puts the tokens that exist into a new set.
func (s *desired) placeTokens(n *node) {
	for _, t := range n.tokens {
		t.issuing = false
		switch {
		case t.obj != nil:
			s.set(n, t.obj)
		case !t.expires.IsZero():
			s.set(n, t.placeholder())
		}
	}
}

// accepted: when the node's copy is known without its map, tokens that are missing are made now.
func (s *desired) accepted(now time.Time, n *node, have wire.Hash) {
	if have.IsZero() || have == n.down.Hash() {
		n.desired.known = true
		s.renew(now, n)
	}
}

// have compares the node's map with the tokens: what the node holds stays until something newer is there.
func (s *desired) have(now time.Time, n *node, h *wire.Have) {
	got := map[string]uint64{}
	for _, e := range h.Entries {
		if e.Kind == wire.KindToken {
			got[e.UID] = e.Version
		}
	}
	for _, t := range n.tokens {
		v, ok := got[t.id.UID]
		switch {
		case t.obj != nil:
		case ok:
			t.expires = time.Unix(int64(v), 0)
			s.set(n, t.placeholder())
		default:
			t.expires = time.Time{}
			s.remove(n, t.id)
		}
	}
	s.holdUnsent(n, h)
	s.renew(now, n)
}

// renew makes the tokens that are missing or due.
func (s *desired) renew(now time.Time, n *node) {
	for _, t := range n.tokens {
		// A pod that has ended needs no newer one.
		if t.issuing || t.pod.Status.Phase == corev1.PodSucceeded || t.pod.Status.Phase == corev1.PodFailed {
			continue
		}
		if due := t.due(); now.Before(due) {
			s.d.wakeAt(due)
		} else {
			s.issue(n, t)
		}
	}
}

var issuing = make(chan struct{}, tokenWorkers)

// issue makes a token beside the loop. The old one stays in place until the new one is there.
func (s *desired) issue(n *node, t *saToken) {
	t.issuing = true
	d, pod := s.d, t.pod
	go func() {
		issuing <- struct{}{}
		var obj *wire.Object
		var expires time.Time
		err := contain.Do(d.cfg.Log, "dispatch/token", pod.Namespace+"/"+pod.Name, func() (err error) {
			obj, expires, err = d.makeToken(d.ctx, t.id, pod, t.audience, t.lifetime)
			return err
		})
		<-issuing
		d.callOn(n, func(now time.Time) {
			if n.tokens[t.id.UID] != t {
				return
			}
			t.issuing = false
			if err != nil {
				d.cfg.Log.Warn("token not made; trying again", "pod", pod.Namespace+"/"+pod.Name, "error", err, "retry", tokenRetry)
				t.retry = now.Add(tokenRetry)
				d.wakeAt(t.retry)
				s.giveUp(n, pod.UID)
				return
			}
			t.obj, t.expires, t.retry = obj, expires, time.Time{}
			d.wakeAt(t.due())
			if n.current != nil {
				s.set(n, obj)
				s.letGo(n, pod.UID)
			}
		})
	}()
}

func (d *Dispatch) makeToken(ctx context.Context, id wire.ID, pod *corev1.Pod, audience string, life time.Duration) (*wire.Object, time.Time, error) {
	name := pod.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	sa, ok := control.Get[*corev1.ServiceAccount](d.cfg.Client, kube.ServiceAccount, pod.Namespace, name)
	if !ok {
		return nil, time.Time{}, fmt.Errorf("serviceaccount %s/%s does not exist", pod.Namespace, name)
	}
	var audiences []string
	if audience != "" {
		audiences = []string{audience}
	}
	token, expires, err := d.cfg.Tokens.IssueToken(ctx, sa, pod, audiences, life)
	if err != nil {
		return nil, time.Time{}, err
	}
	b, err := json.Marshal(wire.Token{
		PodUID: string(pod.UID), Namespace: pod.Namespace, ServiceAccount: name, Audience: audience,
		Token: token, ExpiresUnix: expires.Unix(),
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return &wire.Object{ID: id, Version: uint64(expires.Unix()), Namespace: pod.Namespace, Name: pod.Name, Data: b}, expires, nil
}

package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/kube"
)

// BoundKinds are those that tokens are bound to.
var BoundKinds = []kube.GVK{kube.Pod, kube.Secret, kube.Node, kube.ServiceAccount}

// openTokens are the long requests that were let in by a ServiceAccount's token. They end when the token expires, and when what it is
// bound to goes. The zero value is ready.
type openTokens struct {
	mu sync.Mutex
	by map[boundTo]map[*openToken]struct{} // guarded by mu; without empty sets
}

// boundTo names what a token is bound to: its account, and a pod, a Secret or a node.
type boundTo struct{ kind, namespace, name string }

// openToken is one long request. Its fields do not change, but for stopped and timers.
type openToken struct {
	good func() bool // still accepted
	end  func()      // ends the request

	mu      sync.Mutex
	stopped bool                     // guarded by mu: the request has ended, or is ending
	timers  map[*time.Timer]struct{} // guarded by mu: looks that are due later
}

// check ends the request if its token is not accepted any more.
func (t *openToken) check() {
	if t.good() {
		return
	}
	t.mu.Lock()
	was := t.stopped
	t.stopped = true
	t.mu.Unlock()
	if !was {
		t.end()
	}
}

// checkAfter looks again in a while.
func (t *openToken) checkAfter(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(max(d, 0), func() {
		t.mu.Lock()
		delete(t.timers, timer)
		t.mu.Unlock()
		t.check()
	})
	t.timers[timer] = struct{}{}
}

// stop ends the looking.
func (t *openToken) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	for timer := range t.timers {
		timer.Stop()
	}
}

// Changed is called with each object of BoundKinds that changes or is deleted, once reads show that: long requests with tokens that are
// bound to it may have to end. It returns quickly.
func (a *Credentials) Changed(o kube.Object) {
	at := boundTo{namespace: o.GetNamespace(), name: o.GetName()}
	switch o.(type) {
	case *corev1.Pod:
		at.kind = "pod"
	case *corev1.Secret:
		at.kind = "secret"
	case *corev1.Node:
		at.kind = "node"
	case *corev1.ServiceAccount:
		at.kind = "serviceaccount"
	}
	a.open.mu.Lock()
	defer a.open.mu.Unlock()
	for t := range a.open.by[at] {
		if ends := o.GetDeletionTimestamp(); ends != nil {
			t.checkAfter(ends.Add(satoken.Leeway + time.Second).Sub(clock.Sane(a.pki.now())))
		}
		go t.check()
	}
}

// untilTokenEnds calls end, once and in a goroutine of its own, when token stops being accepted before stop is called.
func (a *Credentials) untilTokenEnds(ctx context.Context, token string, end func()) (stop func()) {
	u, _, err := a.Token(ctx, token, nil)
	if err != nil {
		go end() // it was accepted a moment ago
		return func() {}
	}
	namespace, name, ok := AccountOf(u.Name)
	if !ok {
		return func() {} // of another sort
	}
	expires, bound := claimsOf(token)
	bound = append(bound, boundTo{"serviceaccount", namespace, name})
	t := &openToken{end: end, timers: map[*time.Timer]struct{}{}, good: func() bool {
		_, _, err := a.Token(context.Background(), token, nil)
		return err == nil
	}}
	a.open.add(t, bound)
	if expires > 0 {
		t.checkAfter(time.Unix(expires, 0).Sub(clock.Sane(a.pki.now())))
	}
	go t.check() // what it is bound to may have gone before it was added
	return func() {
		a.open.remove(t, bound)
		t.stop()
	}
}

func (s *openTokens) add(t *openToken, bound []boundTo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[boundTo]map[*openToken]struct{}{}
	}
	for _, at := range bound {
		if s.by[at] == nil {
			s.by[at] = map[*openToken]struct{}{}
		}
		s.by[at][t] = struct{}{}
	}
}

func (s *openTokens) remove(t *openToken, bound []boundTo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range bound {
		if delete(s.by[at], t); len(s.by[at]) == 0 {
			delete(s.by, at)
		}
	}
}

// claimsOf returns when a token that has been verified expires (seconds of Unix time, 0: never), and what it is bound to besides its
// account.
func claimsOf(token string) (expires int64, bound []boundTo) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0, nil
	}
	type ref struct{ Name string }
	var c struct {
		Expires   int64  `json:"exp"`
		Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
		Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
		Bound     struct {
			Namespace         string
			Pod, Secret, Node ref
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(payload, &c) != nil {
		return 0, nil
	}
	for _, at := range []boundTo{
		{"pod", c.Bound.Namespace, c.Bound.Pod.Name}, {"secret", c.Bound.Namespace, c.Bound.Secret.Name},
		{"secret", c.Namespace, c.Secret}, {"node", "", c.Bound.Node.Name},
	} {
		if at.name != "" {
			bound = append(bound, at)
		}
	}
	return c.Expires, bound
}

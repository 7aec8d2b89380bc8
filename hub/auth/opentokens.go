package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// openTokens are the long requests that were let in by a ServiceAccount's token. They end when the token expires, and when what it is
// bound to goes. The zero value is ready.
type openTokens struct {
	mu sync.Mutex
	by map[boundTo]map[*openToken]struct{} // guarded by mu; without empty sets
}

// boundTo names what a token is bound to: an account, or a pod.
type boundTo struct {
	pod             bool
	namespace, name string
}

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

// Changed is called with each Pod and ServiceAccount that changes or is deleted, once reads show that: long requests with tokens that
// are bound to it may have to end. It returns quickly.
func (a *Credentials) Changed(o kube.Object) {
	at := boundTo{namespace: o.GetNamespace(), name: o.GetName()}
	switch o.(type) {
	case *corev1.Pod:
		at.pod = true
	case *corev1.ServiceAccount:
	default:
		return
	}
	a.open.mu.Lock()
	defer a.open.mu.Unlock()
	for t := range a.open.by[at] {
		if ends := o.GetDeletionTimestamp(); ends != nil {
			t.checkAfter(ends.Add(deletedLeeway + time.Second).Sub(sane(a.pki.now())))
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
	bound := []boundTo{{namespace: namespace, name: name}}
	for _, pod := range u.Extra[extraPodName] {
		bound = append(bound, boundTo{pod: true, namespace: namespace, name: pod})
	}
	t := &openToken{end: end, timers: map[*time.Timer]struct{}{}, good: func() bool {
		_, _, err := a.Token(context.Background(), token, nil)
		return err == nil
	}}
	a.open.add(t, bound)
	if at, ok := expiry(token); ok {
		t.checkAfter(at.Sub(sane(a.pki.now())))
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

// expiry returns when a token that has been verified expires; ok is false for one that does not.
func expiry(token string) (at time.Time, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var c struct {
		Expires int64 `json:"exp"`
	}
	if json.Unmarshal(payload, &c) != nil || c.Expires == 0 {
		return time.Time{}, false
	}
	return time.Unix(c.Expires, 0), true
}

package auth

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/kube"
)

// TestOpenTokensEnd checks that a long request ends with its token: when that expires, when its pod or account goes or gets another UID,
// and a minute after either should have gone. Changes of others, and of the same that are none, end nothing.
func TestOpenTokensEnd(t *testing.T) {
	type step struct {
		change func(objects) kube.Object // what is reported as changed; nil: nothing
		wait   time.Duration
		ended  bool
	}
	const sa, po = "ServiceAccount/shop/till", "Pod/shop/till-0"
	for name, steps := range map[string][]step{
		"expires": {{nil, 59 * time.Minute, false}, {nil, 2 * time.Minute, true}},
		"pod is gone": {
			{func(o objects) kube.Object { return o[po] }, 0, false},
			{func(o objects) kube.Object { p := o[po]; delete(o, po); return p }, 0, true},
		},
		"account is gone":    {{func(o objects) kube.Object { a := o[sa]; delete(o, sa); return a }, 0, true}},
		"account made again": {{func(o objects) kube.Object { o[sa] = account("sa-2"); return o[sa] }, 0, true}},
		"pod that stays": {
			{func(o objects) kube.Object {
				o[po] = ending(pod("pod-1"), time.Now().Add(30*time.Second))
				return o[po]
			}, time.Minute, false},
			{nil, time.Minute, true},
		},
		"others": {{func(o objects) kube.Object { return account("sa-9") }, time.Minute, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(30 * 365 * 24 * time.Hour) // the bubble's clock begins before this program was written
				p, err := loadPKI(t.TempDir(), nil, time.Now, newWorld().interfaces)
				if err != nil {
					t.Fatal(err)
				}
				have := objects{sa: account("sa-1"), po: pod("pod-1")}
				a := NewAuthenticator(p, have)
				token, _, err := p.tokens.IssueToken(t.Context(), account("sa-1"), satoken.Bound{Pod: pod("pod-1")}, nil, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				var ends, stopped atomic.Int32
				stop := a.Until(bearing(token), func() { ends.Add(1) })
				a.Until(bearing(token), func() { stopped.Add(1) })()
				for i, s := range steps {
					synctest.Wait()
					if s.change != nil {
						a.Changed(s.change(have))
					}
					time.Sleep(s.wait)
					synctest.Wait()
					if (ends.Load() == 1) != s.ended {
						t.Fatalf("step %d: ended %d times, want %v", i, ends.Load(), s.ended)
					}
				}
				stop()
				time.Sleep(2 * time.Hour)
				if ends.Load() > 1 || stopped.Load() > 0 || len(a.open.by) > 0 {
					t.Errorf("ended %d times, %d after its end; %d are remembered", ends.Load(), stopped.Load(), len(a.open.by))
				}
			})
		})
	}
}

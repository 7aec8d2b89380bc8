package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// issuer makes tokens as a test says.
type issuer func(ctx context.Context, sa *corev1.ServiceAccount, pod *corev1.Pod, audiences []string, life time.Duration) error

func (i issuer) IssueToken(ctx context.Context, sa *corev1.ServiceAccount, to satoken.Bound, audiences []string, life time.Duration) (string, time.Time, error) {
	err := i(ctx, sa, to.Pod, audiences, life)
	return "token for " + to.Pod.Name, time.Now().Add(life), err
}

// results are what a Maker has answered, by the pod's name.
type results struct {
	mu sync.Mutex
	m  map[string]Result // guarded by mu
}

func (r *results) of(pod string) (Result, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	result, ok := r.m[pod]
	return result, ok
}

// makerOf runs a Maker over a ServiceAccount "default" in the bubble of t. ask asks for the tokens of pods.
func makerOf(t *testing.T, i issuer) (ask func(pods ...*corev1.Pod), got *results) {
	m := NewMaker(controltest.New(t, &corev1.ServiceAccount{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"},
	}), i, slog.New(slog.DiscardHandler))
	go func() { _ = m.Run(t.Context()) }()
	got = &results{m: map[string]Result{}}
	return func(pods ...*corev1.Pod) {
		for _, p := range pods {
			for _, r := range NewBook().Want(p) {
				m.Ask(r, func(r Result) {
					got.mu.Lock()
					defer got.mu.Unlock()
					got.m[r.Pod.Name] = r
				})
			}
		}
	}, got
}

func TestMakerMakesTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask, got := makerOf(t, func(_ context.Context, sa *corev1.ServiceAccount, _ *corev1.Pod, audiences []string, life time.Duration) error {
			if sa.Name != "default" || fmt.Sprint(audiences) != "[vault]" || life != 10*time.Hour {
				t.Errorf("asked for a token of %s for %v, %v", sa.Name, audiences, life)
			}
			return nil
		})
		orphan := podOf("orphan", "vault")
		orphan.Spec.ServiceAccountName = "none"
		ask(podOf("web", "vault"), orphan)
		synctest.Wait()
		r, _ := got.of("web")
		var tok wire.Token
		if r.Err != nil || json.Unmarshal(r.object.Data, &tok) != nil {
			t.Fatalf("%+v", r)
		}
		want := wire.Token{PodUID: "web", Namespace: "ns", ServiceAccount: "default", Audience: "vault", Token: "token for web", ExpiresUnix: time.Now().Add(10 * time.Hour).Unix()}
		if tok != want || r.object.Version != uint64(want.ExpiresUnix) || r.object.ID != (wire.ID{Kind: wire.KindToken, UID: "web/vault"}) {
			t.Errorf("made %+v, %+v", r.object, tok)
		}
		if r, _ := got.of("orphan"); r.Err == nil || r.Err.Error() != "serviceaccount ns/none does not exist" {
			t.Errorf("without its account: %v", r.Err)
		}
	})
}

// TestMakerIsShared checks that what holds one up ends by time, and takes no more than its own worker; a panic costs one
// request.
func TestMakerIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remove := contain.Inject(func(site, key string) {
			if site == "dispatch/token" && key == "ns/poison" {
				panic("poison")
			}
		})
		defer remove()
		var mu sync.Mutex // for what follows
		making, most := 0, 0
		var order []string
		ask, got := makerOf(t, func(ctx context.Context, _ *corev1.ServiceAccount, p *corev1.Pod, _ []string, _ time.Duration) error {
			if p.Name == "hangs" {
				<-ctx.Done()
				return ctx.Err()
			}
			mu.Lock()
			making++
			most = max(most, making)
			order = append(order, p.Name)
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			making--
			mu.Unlock()
			return nil
		})
		ask(podOf("hangs", ""), podOf("poison", ""))
		for k := range 10 {
			ask(podOf(fmt.Sprint("p", k), ""))
			time.Sleep(time.Microsecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(order) != 10 || most > workers-1 {
			t.Errorf("%d made, %d at a time, of %d workers", len(order), most, workers)
		}
		for k, name := range order {
			if name != fmt.Sprint("p", k) {
				t.Errorf("not in the order of the requests: %v", order)
				break
			}
		}
		var p *contain.Panic
		if r, _ := got.of("poison"); !errors.As(r.Err, &p) {
			t.Errorf("poison: %v", r.Err)
		}
		if _, done := got.of("hangs"); done {
			t.Error("what hangs is answered at once")
		}
		time.Sleep(limit)
		synctest.Wait()
		if r, _ := got.of("hangs"); !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("what hangs: %v", r.Err)
		}
	})
}

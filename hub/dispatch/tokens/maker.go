package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	// workers is how many tokens are made at a time.
	workers = 4
	// limit is how long one may take: a signature takes milliseconds, and others wait for the worker.
	limit = 30 * time.Second
)

// Issuer makes ServiceAccount tokens; *satoken.Keys is one. No audiences mean the API server's own.
type Issuer interface {
	IssueToken(ctx context.Context, sa *corev1.ServiceAccount, to satoken.Bound, audiences []string, lifetime time.Duration) (token string, expires time.Time, err error)
}

// Maker makes tokens, a few at a time, in the order of the requests. Its fields but queue do not change after NewMaker.
type Maker struct {
	accounts control.Reader
	issuer   Issuer
	log      *slog.Logger
	ready    chan struct{} // has room for one; a signal that queue is not empty

	mu    sync.Mutex
	queue []task // guarded by mu
}

type task struct {
	Request
	done func(Result)
}

// NewMaker returns a Maker; its Run makes the tokens. accounts has the ServiceAccounts, and the nodes.
func NewMaker(accounts control.Reader, issuer Issuer, log *slog.Logger) *Maker {
	return &Maker{accounts: accounts, issuer: issuer, log: log, ready: make(chan struct{}, 1)}
}

// Ask queues a request. It returns at once; done is called with the result, from a goroutine of the Maker, unless Run has ended.
func (m *Maker) Ask(r Request, done func(Result)) {
	m.mu.Lock()
	m.queue = append(m.queue, task{r, done})
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *Maker) take() (list []task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, m.queue = m.queue, nil
	return list
}

// Run makes tokens until ctx ends. It waits for those that are being made.
func (m *Maker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, workers)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ready:
		}
		for _, t := range m.take() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case slots <- struct{}{}:
			}
			wg.Go(func() {
				result := m.make(ctx, t.Request)
				<-slots
				t.done(result)
			})
		}
	}
}

// make makes one token. A panic over it is its error.
func (m *Maker) make(ctx context.Context, r Request) Result {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result := Result{Request: r}
	result.Err = contain.Do(m.log, "dispatch/token", r.Pod.Namespace+"/"+r.Pod.Name, func() (err error) {
		result.object, result.expires, err = m.issue(ctx, r)
		return err
	})
	return result
}

// bound binds a token to a pod; the pod's node is named in it.
func (m *Maker) bound(pod *corev1.Pod) satoken.Bound {
	node, _ := control.Get[*corev1.Node](m.accounts, kube.Node, "", pod.Spec.NodeName)
	return satoken.Bound{Pod: pod, Node: node}
}

func (m *Maker) issue(ctx context.Context, r Request) (*wire.Object, time.Time, error) {
	name := r.Pod.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	sa, ok := control.Get[*corev1.ServiceAccount](m.accounts, kube.ServiceAccount, r.Pod.Namespace, name)
	if !ok {
		return nil, time.Time{}, fmt.Errorf("serviceaccount %s/%s does not exist", r.Pod.Namespace, name)
	}
	var audiences []string
	if r.audience != "" {
		audiences = []string{r.audience}
	}
	token, expires, err := m.issuer.IssueToken(ctx, sa, m.bound(r.Pod), audiences, r.lifetime)
	if err != nil {
		return nil, time.Time{}, err
	}
	b, err := json.Marshal(wire.Token{
		PodUID: string(r.Pod.UID), Namespace: r.Pod.Namespace, ServiceAccount: name, Audience: r.audience,
		Token: token, ExpiresUnix: expires.Unix(),
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return &wire.Object{ID: r.id, Version: uint64(expires.Unix()), Namespace: r.Pod.Namespace, Name: r.Pod.Name, Data: b}, expires, nil
}

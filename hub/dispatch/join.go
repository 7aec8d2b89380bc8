package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/kubelet"
	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// joinTries is how often a join is tried again after a conflict.
const joinTries = 20

// joins verifies join tokens and creates Nodes for new devices, beside the loop. Each request has a goroutine of its own: there
// are no more than handshakes, which are bounded.
type joins struct {
	client control.Client
	log    *slog.Logger
	ready  chan struct{} // has room for one; a signal that queue is not empty

	mu    sync.Mutex
	queue []joinRequest // guarded by mu
}

// joinRequest is done in a goroutine of its own; do calls back.
type joinRequest struct {
	device string // its id
	do     func(ctx context.Context)
}

func newJoins(client control.Client, log *slog.Logger) *joins {
	return &joins{client: client, log: log, ready: make(chan struct{}, 1)}
}

func (j *joins) add(r joinRequest) {
	j.mu.Lock()
	j.queue = append(j.queue, r)
	j.mu.Unlock()
	select {
	case j.ready <- struct{}{}:
	default:
	}
}

func (j *joins) take() (list []joinRequest) {
	j.mu.Lock()
	defer j.mu.Unlock()
	list, j.queue = j.queue, nil
	return list
}

// run does requests until ctx ends, and waits for those under way. A request that panics gets no answer: its device's
// handshake ends by time.
func (j *joins) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-j.ready:
		}
		for _, r := range j.take() {
			wg.Go(func() { contain.Go(j.log, "dispatch/join", r.device, func() { r.do(ctx) }) })
		}
	}
}

// check verifies the token of a hello, once the cache has caught up: the token may be new. It spends nothing:
// a device without a good token causes neither a write nor a message to another node.
func (j *joins) check(device string, h *wire.Hello, done func(jointoken.Record, error)) {
	j.add(joinRequest{device, func(ctx context.Context) {
		var record jointoken.Record
		err := validName(h)
		if err == nil {
			err = j.client.CatchUp(ctx)
		}
		if err == nil {
			_, record, err = j.tokenOf(h)
		}
		if ctx.Err() != nil {
			return
		}
		done(record, err)
	}})
}

// commit checks the token of a hello, spends a use of it, and makes or takes over the Node for the device with a fingerprint,
// in one transaction.
func (j *joins) commit(device string, h *wire.Hello, fingerprint string, done func(error)) {
	j.add(joinRequest{device, func(ctx context.Context) { done(j.join(ctx, h, fingerprint)) }})
}

// refusal is the error of a join that would fail again.
type refusal struct {
	code wire.Code
	err  error // for the user of the device: what, why and the way out
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refused returns a refusal for an invalid token or hello.
func refused(format string, args ...any) error {
	return &refusal{wire.CodeToken, fmt.Errorf(format, args...)}
}

// validName checks what a device sends about itself, before anything is looked up for it.
func validName(h *wire.Hello) error {
	if msgs := validation.IsDNS1123Subdomain(h.Node); len(msgs) > 0 {
		return refused("%q cannot be a node name (%s); choose one with --node-name", shortName(h.Node), msgs[0])
	}
	return nil
}

// tokenOf finds the token of a hello, and checks that it is good for the name that the device wants.
func (j *joins) tokenOf(h *wire.Hello) (*corev1.Secret, jointoken.Record, error) {
	secret, ok := control.Get[*corev1.Secret](j.client, kube.Secret, jointoken.SecretNamespace, jointoken.SecretName(h.TokenID))
	if !ok {
		return nil, jointoken.Record{}, refused("%w", jointoken.ErrUnknown)
	}
	record, err := jointoken.FromSecret(secret)
	if err != nil {
		return nil, record, refused("%v", err)
	}
	now := clock.Now()
	if err := record.Check(h.Secret, now); err != nil {
		if errors.Is(err, jointoken.ErrExpired) && time.Since(now).Abs() > time.Hour {
			return nil, record, refused("%v (the hub's clock says %s, which cannot be: set it, or make a token that does not expire with: petrel token create --ttl 0)",
				err, time.Now().UTC().Format(time.RFC3339))
		}
		return nil, record, refused("%v", err)
	}
	if err := record.CheckName(h.Node); err != nil {
		return nil, record, refused("%v", err)
	}
	return secret, record, nil
}

func (j *joins) join(ctx context.Context, h *wire.Hello, fp string) error {
	var taints []corev1.Taint
	if len(h.Taints) > 0 {
		if err := json.Unmarshal(h.Taints, &taints); err != nil {
			return refused("the agent's taints cannot be read: %v", err)
		}
	}
	for try := 0; ; try++ {
		// The next attempt must read the write that the last one conflicted with.
		if err := j.client.CatchUp(ctx); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		writes, err := j.writes(h, fp, taints)
		if err == nil {
			err = j.client.Commit(ctx, writes)
		}
		switch {
		case err == nil:
			return nil
		case errors.As(err, new(*refusal)):
			return err
		case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err):
			return refused("%v", err)
		case try >= joinTries || !lostRace(err):
			return fmt.Errorf("join: %w", err)
		}
	}
}

// lostRace reports whether a commit failed because another writer was faster.
func lostRace(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}

// writes returns what a join changes: the token has one use less, and the Node exists with this key.
func (j *joins) writes(h *wire.Hello, fp string, taints []corev1.Taint) ([]control.Write, error) {
	secret, record, err := j.tokenOf(h)
	if err != nil {
		return nil, err
	}
	var writes []control.Write
	if record.Uses > 0 {
		spent := secret.DeepCopy()
		spent.Data = jointoken.ToSecret(record.Spend()).Data
		writes = append(writes, control.Write{Object: spent, Old: secret})
	}
	old, ok := control.Get[*corev1.Node](j.client, kube.Node, "", h.Node)
	if !ok {
		node := &corev1.Node{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{
				Name:        h.Node,
				Labels:      map[string]string{},
				Annotations: map[string]string{kube.NodeKeyAnnotation: fp, kube.JoinTokenAnnotation: record.TokenID},
			},
			Spec: corev1.NodeSpec{Taints: taints},
		}
		kubelet.MergeLabels(node, h.Labels, 0) // what it may not set is reported when its first report has it again
		node.Labels[corev1.LabelHostname] = h.Node
		return append(writes, control.Write{Object: node}), nil
	}
	if key := old.Annotations[kube.NodeKeyAnnotation]; key != "" && key != fp && record.Replace != h.Node {
		return nil, &refusal{wire.CodeNameTaken, fmt.Errorf("the name is taken: another device has just joined as node %s; %s", h.Node, record.OtherName())}
	}
	node := old.DeepCopy()
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[kube.NodeKeyAnnotation], node.Annotations[kube.JoinTokenAnnotation] = fp, record.TokenID
	return append(writes, control.Write{Object: node, Old: old}), nil
}

package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// joinTries is how often a join that lost a race is tried again.
const joinTries = 20

// checkToken looks at the device's token beside the loop, since the cache has to catch up with one that was made just now,
// and comes back to the loop. It spends nothing: a device without a good token causes neither a write nor a message to
// another node.
func (d *Dispatch) checkToken(n *node, c *conn) {
	h := c.hello
	d.beside(n, func() error {
		var record jointoken.Record
		err := validName(h)
		if err == nil {
			err = d.cfg.Client.CatchUp(d.ctx)
		}
		if err == nil {
			_, record, err = d.tokenOf(h)
		}
		if d.ctx.Err() != nil {
			return nil
		}
		d.callOn(n, func(now time.Time) {
			switch {
			case n.conns[c.tag] != c:
			case err != nil:
				d.refuseJoin(now, n, c, err)
			default:
				d.admitToken(now, n, c, record)
			}
		})
		return nil
	})
}

// join checks the device's token, spends a use of it, and makes or takes over the Node, in one transaction. It runs
// beside the loop and comes back to it.
func (d *Dispatch) join(n *node, c *conn) {
	h, fp := c.hello, c.s.Fingerprint
	d.beside(n, func() error {
		err := d.commitJoin(d.ctx, h, fp)
		d.callOn(n, func(now time.Time) {
			switch {
			case n.conns[c.tag] != c:
			case err != nil:
				d.refuseJoin(now, n, c, err)
			default:
				d.cfg.Log.Info("device joined", "node", h.Node, "device", n.id)
				d.open(now, n, c, h.Node)
			}
		})
		return nil
	})
}

// beside runs f on a goroutine of its own. One that panics leaves its device without an answer: its handshake ends by time.
func (d *Dispatch) beside(n *node, f func() error) {
	go func() { _ = contain.Do(d.cfg.Log, "dispatch/join", n.id, f) }()
}

func (d *Dispatch) refuseJoin(now time.Time, n *node, c *conn, err error) {
	code := wire.CodeToken
	switch {
	case errors.Is(err, errTaken):
		code = wire.CodeNameTaken
	case !errors.Is(err, errRefused):
		code = wire.CodeBusy
	}
	d.refuse(now, n, c, code, strings.TrimPrefix(err.Error(), errRefused.Error()+": "))
}

var (
	// errRefused marks a join that will not do better later.
	errRefused = errors.New("refused")
	// errTaken marks a join under the name of a Node that another device is; it may be deleted.
	errTaken = errors.New("the name is taken")
)

// validName checks what a device says of itself before anything is looked up for it.
func validName(h *wire.Hello) error {
	if msgs := validation.IsDNS1123Subdomain(h.Node); len(msgs) > 0 {
		name := h.Node
		if len(name) > maxNameLogged {
			name = name[:maxNameLogged] + "..."
		}
		return fmt.Errorf("%w: %q cannot be a node name (%s); choose one with --node-name", errRefused, name, msgs[0])
	}
	return nil
}

// tokenOf finds the token of a hello, and checks that it is good for the name that the device wants.
func (d *Dispatch) tokenOf(h *wire.Hello) (*corev1.Secret, jointoken.Record, error) {
	secret, ok := control.Get[*corev1.Secret](d.cfg.Client, kube.Secret, jointoken.SecretNamespace, jointoken.SecretName(h.TokenID))
	if !ok {
		return nil, jointoken.Record{}, fmt.Errorf("%w: %w", errRefused, jointoken.ErrUnknown)
	}
	record, err := jointoken.FromSecret(secret)
	if err != nil {
		return nil, record, fmt.Errorf("%w: %v", errRefused, err)
	}
	now := clock.Now()
	if err := record.Check(h.Secret, now); err != nil {
		if errors.Is(err, jointoken.ErrExpired) && time.Since(now).Abs() > time.Hour {
			return nil, record, fmt.Errorf("%w: %v (the hub's clock says %s, which cannot be: set it, or make a token that does not expire with: petrel token create --ttl 0)",
				errRefused, err, time.Now().UTC().Format(time.RFC3339))
		}
		return nil, record, fmt.Errorf("%w: %v", errRefused, err)
	}
	if record.Replace != "" && record.Replace != h.Node {
		return nil, record, fmt.Errorf("%w: this join token is for the device that takes the place of node %s, not for %s; start the agent with --node-name %s, or make another token with: petrel token create",
			errRefused, record.Replace, h.Node, record.Replace)
	}
	return secret, record, nil
}

func (d *Dispatch) commitJoin(ctx context.Context, h *wire.Hello, fp string) error {
	var taints []corev1.Taint
	if len(h.Taints) > 0 {
		if err := json.Unmarshal(h.Taints, &taints); err != nil {
			return fmt.Errorf("%w: the agent's taints cannot be read: %v", errRefused, err)
		}
	}
	for try := 0; ; try++ {
		// What made the last try lose its race shows by now.
		if err := d.cfg.Client.CatchUp(ctx); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		writes, err := d.joinWrites(h, fp, taints)
		if err == nil {
			err = d.cfg.Client.Commit(ctx, writes)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errRefused), errors.Is(err, errTaken):
			return err
		case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err):
			return fmt.Errorf("%w: %v", errRefused, err)
		case try >= joinTries || !lostRace(err):
			return fmt.Errorf("join: %w", err)
		}
	}
}

// lostRace reports whether a commit failed because another writer was faster.
func lostRace(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}

// joinWrites is what a join changes: the token has one use less, and the Node is there with this key.
func (d *Dispatch) joinWrites(h *wire.Hello, fp string, taints []corev1.Taint) ([]control.Write, error) {
	secret, record, err := d.tokenOf(h)
	if err != nil {
		return nil, err
	}
	var writes []control.Write
	if record.Uses > 0 {
		spent := secret.DeepCopy()
		spent.Data = jointoken.ToSecret(record.Spend()).Data
		writes = append(writes, control.Write{Object: spent, Old: secret})
	}
	old, ok := control.Get[*corev1.Node](d.cfg.Client, kube.Node, "", h.Node)
	if !ok {
		node := &corev1.Node{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{
				Name:        h.Node,
				Labels:      map[string]string{},
				Annotations: map[string]string{kube.NodeKeyAnnotation: fp},
			},
			Spec: corev1.NodeSpec{Taints: taints},
		}
		mergeLabels(node, h.Labels) // what it may not say, its first report says again
		node.Labels[corev1.LabelHostname] = h.Node
		return append(writes, control.Write{Object: node}), nil
	}
	if key := old.Annotations[kube.NodeKeyAnnotation]; key != "" && key != fp && record.Replace != h.Node {
		return nil, fmt.Errorf("%w: another device has just joined as node %s; give this one another name with --node-name", errTaken, h.Node)
	}
	node := old.DeepCopy()
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[kube.NodeKeyAnnotation] = fp
	return append(writes, control.Write{Object: node, Old: old}), nil
}

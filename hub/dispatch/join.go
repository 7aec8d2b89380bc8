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
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// joinTries is how often a join that lost a race is tried again.
const joinTries = 20

// unknownTries is how often an unknown token is looked for again: an agent does not come back once it is refused.
const unknownTries = 4

// join checks the device's token, spends a use of it, and makes or takes over the Node, in one transaction. It runs
// beside the loop and comes back to it.
func (d *Dispatch) join(n *node, c *conn) {
	h, fp := c.hello, c.s.Fingerprint
	go func() {
		err := d.commitJoin(d.ctx, h, fp)
		d.call(func(now time.Time) {
			switch {
			case n.conns[c.tag] != c:
			case err != nil:
				code := wire.CodeToken
				if !errors.Is(err, errRefused) {
					code = wire.CodeBusy
				}
				d.refuse(now, n, c, code, strings.TrimPrefix(err.Error(), errRefused.Error()+": "))
			default:
				d.cfg.Log.Info("device joined", "node", h.Node, "device", n.id)
				d.open(now, n, c, h.Node)
			}
		})
	}()
}

// errRefused marks a join that will not do better later.
var errRefused = errors.New("refused")

func (d *Dispatch) commitJoin(ctx context.Context, h *wire.Hello, fp string) error {
	if msgs := validation.IsDNS1123Subdomain(h.Node); len(msgs) > 0 {
		return fmt.Errorf("%w: %q cannot be a node name (%s); choose one with --node-name", errRefused, h.Node, msgs[0])
	}
	var taints []corev1.Taint
	if len(h.Taints) > 0 {
		if err := json.Unmarshal(h.Taints, &taints); err != nil {
			return fmt.Errorf("%w: the agent's taints cannot be read: %v", errRefused, err)
		}
	}
	for try := 0; ; try++ {
		writes, err := d.joinWrites(h, fp, taints)
		if err == nil {
			err = d.cfg.Client.Commit(ctx, writes)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, jointoken.ErrUnknown) && try < unknownTries: // the cache may not have heard of a new token yet
		case errors.Is(err, errRefused):
			return err
		case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err):
			return fmt.Errorf("%w: %v", errRefused, err)
		case try >= joinTries || ctx.Err() != nil:
			return fmt.Errorf("join: %w", err)
		}
		select { // the cache has to see the write that was first
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// joinWrites is what a join changes: the token has one use less, and the Node is there with this key.
func (d *Dispatch) joinWrites(h *wire.Hello, fp string, taints []corev1.Taint) ([]control.Write, error) {
	secret, ok := control.Get[*corev1.Secret](d.cfg.Client, kube.Secret, jointoken.SecretNamespace, jointoken.SecretName(h.TokenID))
	if !ok {
		return nil, fmt.Errorf("%w: %w", errRefused, jointoken.ErrUnknown)
	}
	record, err := jointoken.FromSecret(secret)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errRefused, err)
	}
	if err := record.Check(h.Secret, time.Now()); err != nil {
		return nil, fmt.Errorf("%w: %v", errRefused, err)
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
				Labels:      allowedLabels(h.Labels),
				Annotations: map[string]string{kube.NodeKeyAnnotation: fp},
			},
			Spec: corev1.NodeSpec{Taints: taints},
		}
		if node.Labels == nil {
			node.Labels = map[string]string{}
		}
		node.Labels[corev1.LabelHostname] = h.Node
		return append(writes, control.Write{Object: node}), nil
	}
	node := old.DeepCopy()
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[kube.NodeKeyAnnotation] = fp
	return append(writes, control.Write{Object: node, Old: old}), nil
}

// allowedLabels leaves out what a node may not say of itself, as Kubernetes' NodeRestriction does.
func allowedLabels(labels map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		domain, _, _ := strings.Cut(k, "/")
		if strings.HasSuffix(domain, "node-restriction.kubernetes.io") ||
			len(validation.IsQualifiedName(k)) > 0 || len(validation.IsValidLabelValue(v)) > 0 {
			continue
		}
		out[k] = v
	}
	return out
}

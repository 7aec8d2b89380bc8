package hub

import (
	"context"
	"fmt"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
)

// localTokenLifetime bounds a token that is used at once by an agent of the same process.
const localTokenLifetime = 5 * time.Minute

// LocalToken makes a join token for the agent beside the hub that is or becomes that node, good for one join in the next
// minutes. It may also replace a node of that name: a user who may start a hub may name this machine. LocalToken works once Run
// runs, and waits until the namespace of tokens exists.
func (h *Hub) LocalToken(ctx context.Context, node string) (string, error) {
	cluster := h.cluster
	cluster.Addresses = []string{h.localAddress()}
	token, secret, err := jointoken.Mint(cluster, jointoken.Options{TTL: localTokenLifetime, Uses: 1, Description: "petrel up", Replace: node}, time.Now(), nil)
	if err != nil {
		return "", err
	}
	if err := h.namespaceThere(ctx, jointoken.SecretNamespace); err != nil {
		return "", err
	}
	if _, err := h.registry.Client().Create(ctx, secret); err != nil {
		return "", fmt.Errorf("join token for this machine: %w", err)
	}
	return token.String(), nil
}

// namespaceThere waits until a namespace exists, which a loop of the hub makes.
func (h *Hub) namespaceThere(ctx context.Context, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	made := make(chan struct{}, 1)
	h.objects.Subscribe(ctx, func(ch control.Change) {
		if ch.New == nil || ch.New.GetName() != name {
			return
		}
		select {
		case made <- struct{}{}:
		default: // a later state of it
		}
	}, kube.Namespace)
	select {
	case <-made:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

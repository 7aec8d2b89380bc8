package hub

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/internal/jointoken"
)

// localTokenLifetime bounds a token that is used at once by an agent of the same process.
const localTokenLifetime = 5 * time.Minute

// LocalToken makes a join token for the agent beside the hub that is or becomes that node, good for one join in the next
// minutes. A user who may start a hub may say who its own machine is, so the token also replaces. It works once Run runs, and waits until the namespace of tokens is there.
func (h *Hub) LocalToken(ctx context.Context, node string) (string, error) {
	cluster := h.cluster
	cluster.Addresses = []string{h.localAddress()}
	token, secret, err := jointoken.Mint(cluster, jointoken.Options{TTL: localTokenLifetime, Uses: 1, Description: "petrel up", Replace: node}, time.Now(), nil)
	if err != nil {
		return "", err
	}
	for {
		_, err := h.registry.Client().Create(ctx, secret)
		if err == nil {
			return token.String(), nil
		}
		if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return "", fmt.Errorf("join token for this machine: %w", err)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond): // the namespace is on its way
		}
	}
}

package hub

import (
	"context"
	"net"

	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/webhook"
)

// dynamicAdmission makes what runs the webhooks and policies that users configure. It reads the cache, so it comes before the
// registry.
func (h *Hub) dynamicAdmission() (*dynamic.Admission, error) {
	h.webhooks = webhook.New(webhookServices{h})
	h.webhookMetrics = admissionwebhook.NewMetrics()
	return dynamic.New(dynamic.Config{
		Objects:    h.objects,
		Kinds:      h.kinds,
		Client:     h.webhooks,
		Types:      managedfields.NewDeducedTypeConverter(),
		Authorizer: h.policy,
		Metrics:    h.webhookMetrics,
		Log:        h.part("admission"),
	})
}

// webhookServices reaches the Services of webhooks. The connections are the hub's own, not those of the user whose request made one:
// they are kept for the requests of others.
type webhookServices struct{ h *Hub }

// DialService implements webhook.Dialer.
func (s webhookServices) DialService(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
	return s.h.reach.DialService(auth.WithUser(ctx, auth.Hub.User), namespace, name, port)
}

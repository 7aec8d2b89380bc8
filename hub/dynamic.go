package hub

import (
	"context"
	"net"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/policystatus"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/kube"
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
		Types:      fieldmanager.TypeConverter(h.kinds, h.types),
		Authorizer: h.policy,
		Metrics:    h.webhookMetrics,
		Note:       audit.Annotate,
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

// policyStatus makes the controller that type-checks policies. Kinds without a Go type are not checked.
func (h *Hub) policyStatus() *policystatus.Controller {
	types := &h.types.Types
	return policystatus.New(policystatus.Config{
		Client: h.registry.ClientAs(auth.Controller("validatingadmissionpolicy-status-controller")),
		Kind: func(gvr schema.GroupVersionResource) (kube.GVK, bool) {
			for _, k := range h.kinds.All() {
				if k.GVR() == gvr {
					return k.GVK, true
				}
			}
			return kube.GVK{}, false
		},
		Schema: func(gvk kube.GVK) (*spec.Schema, error) {
			defer types.Release()
			return types.Schema(gvk)
		},
		Log: h.part("policystatus"),
	})
}

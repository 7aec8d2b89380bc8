package hub

import (
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/webhook"
)

// dynamicAdmission makes what runs the webhooks and policies that users configure. It reads the cache, so it comes before the
// registry.
func (h *Hub) dynamicAdmission() (*dynamic.Admission, error) {
	h.webhooks = webhook.New(nil)
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

package hub

import (
	"context"
	"encoding/json"
	"iter"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/aggregate"
	"petrel.dev/petrel/hub/aggregate/swagger"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/apiservice"
	"petrel.dev/petrel/hub/resource/metrics"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/kube"
)

// openAggregate makes the hub's side of API servers behind it, and publishes by which certificates they know who asks.
func (h *Hub) openAggregate() error {
	identity, err := h.pki.FrontProxy()
	if err != nil {
		return err
	}
	h.aggregated = aggregate.New(aggregate.Config{Objects: h.objects, Dialer: h.reach, Identity: identity, Log: h.part("aggregate")})
	list := func(names ...string) string {
		b, _ := json.Marshal(names) // strings have a JSON form
		return string(b)
	}
	h.published = append(h.published, &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{Kind: kube.ConfigMap.Kind, APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"},
		Data: map[string]string{
			"client-ca-file":                     string(h.pki.CA()),
			"requestheader-client-ca-file":       string(identity.CA()),
			"requestheader-allowed-names":        list(auth.FrontProxyName),
			"requestheader-username-headers":     list("X-Remote-User"),
			"requestheader-uid-headers":          list("X-Remote-Uid"),
			"requestheader-group-headers":        list("X-Remote-Group"),
			"requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
		},
	})
	return nil
}

// documents returns the schemas of all that is served here, aggregated servers included.
func (h *Hub) documents() *swagger.Documents {
	return swagger.New(openapi.New(h.kinds), h.aggregated, h.part("openapi"))
}

// apiServices returns the controller of APIServices.
func (h *Hub) apiServices() runner {
	return apiservice.New(apiservice.Config{Client: h.registry.ClientAs(auth.Controller("apiservice-controller")), Served: h.servedVersions,
		Look: h.aggregated.Look, Forget: h.aggregated.Forget, Log: h.part("apiservice")})
}

// servedVersions yields the versions of groups that the hub serves itself. The one of metrics is left out: nobody registers it on
// Kubernetes, and who installs metrics-server brings an APIService of that name.
func (h *Hub) servedVersions(ctx context.Context) iter.Seq[[]schema.GroupVersion] {
	return func(yield func([]schema.GroupVersion) bool) {
		for kinds := range h.kinds.Changes(ctx) {
			seen := map[schema.GroupVersion]bool{}
			var out []schema.GroupVersion
			for _, k := range kinds {
				gv := k.GVK.GroupVersion()
				if !seen[gv] && gv.Group != metrics.NodeMetrics.Group && gv.Group != apiregistrationv1.GroupName {
					seen[gv] = true
					out = append(out, gv)
				}
			}
			if !yield(out) {
				return
			}
		}
	}
}

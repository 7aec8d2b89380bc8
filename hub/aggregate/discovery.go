package aggregate

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/apiserver/discovery"
	"petrel.dev/petrel/hub/control"
)

// Generation is another number after each change of what Versions returns.
func (a *Aggregator) Generation() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.generation
}

// Services returns the APIServices that name a server behind the hub, in the order in which discovery shows them. They are shared:
// read-only.
func (a *Aggregator) Services() (services []*apiregistrationv1.APIService) {
	for _, svc := range control.List[*apiregistrationv1.APIService](a.cfg.Objects, APIService, "") {
		if _, ok := a.Remote(schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}); ok {
			services = append(services, svc)
		}
	}
	slices.SortFunc(services, func(x, y *apiregistrationv1.APIService) int {
		return cmp.Or(cmp.Compare(y.Spec.GroupPriorityMinimum, x.Spec.GroupPriorityMinimum), cmp.Compare(x.Spec.Group, y.Spec.Group),
			cmp.Compare(y.Spec.VersionPriority, x.Spec.VersionPriority), cmp.Compare(x.Spec.Version, y.Spec.Version))
	})
	return services
}

// Versions returns what aggregated servers serve, in the order in which discovery shows it.
func (a *Aggregator) Versions() []discovery.Remote {
	services := a.Services()
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []discovery.Remote
	for _, svc := range services {
		if s := a.servers[svc.Name]; s != nil {
			out = append(out, discovery.Remote{GroupVersion: schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}, Resources: s.resources, Current: s.current})
		}
	}
	return out
}

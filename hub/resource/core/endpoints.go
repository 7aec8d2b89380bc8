package core

import (
	"context"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func endpointsKind() *resource.Kind {
	k := resource.Declare(kube.Endpoints, "endpoints", "endpoints")
	k.ShortNames = []string{"ep"}
	k.Deprecated = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
	k.Rules = resource.Strategy[api.Endpoints]{
		ValidateCreate: validation.ValidateEndpointsCreate,
		ValidateUpdate: validation.ValidateEndpointsUpdate,
		WarnCreate:     func(_ context.Context, ep *api.Endpoints) []string { return endpointsWarnings(ep) },
		WarnUpdate:     func(_ context.Context, ep, _ *api.Endpoints) []string { return endpointsWarnings(ep) },
		CreateOnUpdate: true,
	}.Rules()
	return k
}

func endpointsWarnings(ep *api.Endpoints) []string {
	var out []string
	warn := func(path *field.Path, addresses []api.EndpointAddress) {
		for i := range addresses {
			out = append(out, utilvalidation.GetWarningsForIP(path.Index(i).Child("ip"), addresses[i].IP)...)
		}
	}
	for i := range ep.Subsets {
		path := field.NewPath("subsets").Index(i)
		warn(path.Child("addresses"), ep.Subsets[i].Addresses)
		warn(path.Child("notReadyAddresses"), ep.Subsets[i].NotReadyAddresses)
	}
	return out
}

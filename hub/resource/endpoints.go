package resource

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	"k8s.io/kubernetes/pkg/apis/discovery/validation"

	"petrel.dev/petrel/internal/kube"
)

func endpointsKind() *Kind {
	k := declare(kube.Endpoints, "endpoints", "endpoints",
		//lint:ignore SA1019 deprecated by upstream, and part of the API that is served
		func() kube.Object { return &corev1.Endpoints{} }, func() runtime.Object { return &corev1.EndpointsList{} })
	k.ShortNames = []string{"ep"}
	k.Rules = strategy[api.Endpoints]{
		validateCreate: corevalidation.ValidateEndpointsCreate,
		validateUpdate: corevalidation.ValidateEndpointsUpdate,
		warnCreate:     func(_ context.Context, ep *api.Endpoints) []string { return endpointsWarnings(ep) },
		warnUpdate:     func(_ context.Context, ep, _ *api.Endpoints) []string { return endpointsWarnings(ep) },
		createOnUpdate: true,
	}.rules()
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

func endpointSliceKind() *Kind {
	k := declare(kube.EndpointSlice, "endpointslices", "endpointslice",
		func() kube.Object { return &discoveryv1.EndpointSlice{} }, func() runtime.Object { return &discoveryv1.EndpointSliceList{} })
	k.Rules = strategy[discovery.EndpointSlice]{
		prepareCreate: func(slice *discovery.EndpointSlice) {
			slice.Generation = 1
			dropTopology(slice)
		},
		prepareUpdate: func(slice, old *discovery.EndpointSlice) {
			if !sameEndpoints(slice, old) {
				slice.Generation = old.Generation + 1
			}
			if !apiequality.Semantic.DeepEqual(slice.Endpoints, old.Endpoints) {
				dropTopology(slice)
			}
		},
		validateCreate: validation.ValidateEndpointSliceCreate,
		validateUpdate: validation.ValidateEndpointSliceUpdate,
		warnCreate: func(_ context.Context, slice *discovery.EndpointSlice) []string {
			var out []string
			if slice.AddressType == discovery.AddressTypeFQDN {
				out = append(out, "spec.addressType: FQDN endpoints are deprecated")
			}
			return append(out, sliceWarnings(slice)...)
		},
		warnUpdate: func(_ context.Context, slice, _ *discovery.EndpointSlice) []string { return sliceWarnings(slice) },
	}.rules()
	return k
}

// sameEndpoints compares all but the metadata, of which only labels count.
func sameEndpoints(a, b *discovery.EndpointSlice) bool {
	return a.AddressType == b.AddressType &&
		apiequality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) &&
		apiequality.Semantic.DeepEqual(a.Ports, b.Ports) &&
		apiequality.Semantic.DeepEqual(a.Labels, b.Labels)
}

// dropTopology clears a field that discovery/v1 can still read but no longer write.
func dropTopology(slice *discovery.EndpointSlice) {
	for i := range slice.Endpoints {
		slice.Endpoints[i].DeprecatedTopology = nil
	}
}

func sliceWarnings(slice *discovery.EndpointSlice) []string {
	var out []string
	if metav1.GetControllerOfNoCopy(slice) != nil {
		return nil // a controller's addresses are well formed: they come from pods
	}
	for i := range slice.Endpoints {
		for j, addr := range slice.Endpoints[i].Addresses {
			out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), addr)...)
		}
	}
	return out
}

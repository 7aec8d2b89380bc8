// Package discovery declares the kinds of discovery.k8s.io.
package discovery

import (
	"context"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/discovery"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	"k8s.io/kubernetes/pkg/apis/discovery/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{endpointSliceKind()} }

func endpointSliceKind() *resource.Kind {
	k := resource.Declare(kube.EndpointSlice, "endpointslices", "endpointslice")
	k.Rules = resource.Strategy[discovery.EndpointSlice]{
		PrepareCreate: func(slice *discovery.EndpointSlice) {
			slice.Generation = 1
			dropTopology(slice)
		},
		PrepareUpdate: func(slice, old *discovery.EndpointSlice) {
			if !sameEndpoints(slice, old) {
				slice.Generation = old.Generation + 1
			}
			if !apiequality.Semantic.DeepEqual(slice.Endpoints, old.Endpoints) {
				dropTopology(slice)
			}
		},
		ValidateCreate: validation.ValidateEndpointSliceCreate,
		ValidateUpdate: validation.ValidateEndpointSliceUpdate,
		WarnCreate: func(_ context.Context, slice *discovery.EndpointSlice) []string {
			var out []string
			if slice.AddressType == discovery.AddressTypeFQDN {
				out = append(out, "spec.addressType: FQDN endpoints are deprecated")
			}
			return append(out, sliceWarnings(slice)...)
		},
		WarnUpdate: func(_ context.Context, slice, _ *discovery.EndpointSlice) []string { return sliceWarnings(slice) },
	}.Rules()
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

package dra

import (
	"context"
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/fields"
	api "k8s.io/kubernetes/pkg/apis/resource"
	"k8s.io/kubernetes/pkg/apis/resource/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func sliceKind() *resource.Kind {
	k := resource.Declare(resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"), "resourceslices", "resourceslice")
	k.ClusterScoped()
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	warn := func(_ context.Context, s *api.ResourceSlice) []string {
		if s.Spec.Driver != strings.ToLower(s.Spec.Driver) {
			return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", s.Spec.Driver)}
		}
		return nil
	}
	k.Rules = resource.Strategy[api.ResourceSlice]{
		PrepareCreate: func(s *api.ResourceSlice) {
			s.Generation = 1
			dropAlphaFields(s, nil)
		},
		PrepareUpdate: func(s, old *api.ResourceSlice) {
			resource.CountChange(&s.ObjectMeta, &old.ObjectMeta, s.Spec, old.Spec)
			dropAlphaFields(s, old)
		},
		ValidateCreate: validation.ValidateResourceSlice,
		ValidateUpdate: validation.ValidateResourceSliceUpdate,
		WarnCreate:     warn,
		WarnUpdate:     func(ctx context.Context, s, _ *api.ResourceSlice) []string { return warn(ctx, s) },
	}.Rules()
	k.SelectFields(func(obj kube.Object, set fields.Set) {
		spec := &obj.(*resourcev1.ResourceSlice).Spec
		set[resourcev1.ResourceSliceSelectorNodeName] = ""
		if spec.NodeName != nil {
			set[resourcev1.ResourceSliceSelectorNodeName] = *spec.NodeName
		}
		set[resourcev1.ResourceSliceSelectorDriver] = spec.Driver
	}, resourcev1.ResourceSliceSelectorNodeName, resourcev1.ResourceSliceSelectorDriver)
	return k
}

// dropAlphaFields removes the fields of features that are off in Kubernetes 1.36 (DRANodeAllocatableResources and
// DRAListTypeAttributes), unless the old object uses the feature.
func dropAlphaFields(s, old *api.ResourceSlice) {
	if !usesMappings(old) {
		for i := range s.Spec.Devices {
			s.Spec.Devices[i].NodeAllocatableResourceMappings = nil
		}
	}
	if usesLists(old) {
		return
	}
	for i := range s.Spec.Devices {
		for name, a := range s.Spec.Devices[i].Attributes {
			a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			s.Spec.Devices[i].Attributes[name] = a
		}
	}
}

func usesMappings(s *api.ResourceSlice) bool {
	if s == nil {
		return false
	}
	for i := range s.Spec.Devices {
		if len(s.Spec.Devices[i].NodeAllocatableResourceMappings) > 0 {
			return true
		}
	}
	return false
}

func usesLists(s *api.ResourceSlice) bool {
	if s == nil {
		return false
	}
	for i := range s.Spec.Devices {
		for _, a := range s.Spec.Devices[i].Attributes {
			if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
				return true
			}
		}
	}
	return false
}

package dra

import (
	resourcev1 "k8s.io/api/resource/v1"
	api "k8s.io/kubernetes/pkg/apis/resource"
	"k8s.io/kubernetes/pkg/apis/resource/validation"

	"petrel.dev/petrel/hub/resource"
)

func deviceClassKind() *resource.Kind {
	k := resource.Declare(resourcev1.SchemeGroupVersion.WithKind("DeviceClass"), "deviceclasses", "deviceclass")
	k.ClusterScoped()
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	k.Rules = resource.Strategy[api.DeviceClass]{
		PrepareCreate: func(c *api.DeviceClass) { c.Generation = 1 },
		PrepareUpdate: func(c, old *api.DeviceClass) {
			resource.CountChange(&c.ObjectMeta, &old.ObjectMeta, c.Spec, old.Spec)
		},
		ValidateCreate: validation.ValidateDeviceClass,
		ValidateUpdate: validation.ValidateDeviceClassUpdate,
	}.Rules()
	return k
}

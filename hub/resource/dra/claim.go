package dra

import (
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/resourceclaimspec"
	api "k8s.io/kubernetes/pkg/apis/resource"
	"k8s.io/kubernetes/pkg/apis/resource/validation"

	"petrel.dev/petrel/hub/resource"
)

func claimKind() *resource.Kind {
	k := resource.Declare(resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"), "resourceclaims", "resourceclaim")
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	k.Rules = resource.Strategy[api.ResourceClaim]{
		PrepareCreate: func(c *api.ResourceClaim) {
			c.Status = api.ResourceClaimStatus{}
			resourceclaimspec.DropDisabledFields(&c.Spec, nil)
		},
		PrepareUpdate: func(c, old *api.ResourceClaim) {
			c.Status = *old.Status.DeepCopy()
			resourceclaimspec.DropDisabledFields(&c.Spec, &old.Spec)
		},
		ValidateCreate: validation.ValidateResourceClaim,
		ValidateUpdate: validation.ValidateResourceClaimUpdate,
	}.Rules()
	k.Subresources["status"] = resource.Strategy[api.ResourceClaim]{
		PrepareUpdate: func(c, old *api.ResourceClaim) {
			copied := old.DeepCopy()
			c.Spec = copied.Spec
			metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &copied.ObjectMeta)
			dropDeallocated(c, old)
		},
		ValidateUpdate: validation.ValidateResourceClaimStatusUpdate,
	}.Status(k)
	return k
}

// device names one that is allocated to a claim.
type device struct{ driver, pool, name, share string }

// dropDeallocated removes the status of devices that the update takes away from the claim, for writers that do not know of it.
func dropDeallocated(c, old *api.ResourceClaim) {
	gone := allocated(old)
	for d := range allocated(c) {
		delete(gone, d)
	}
	c.Status.Devices = slices.DeleteFunc(c.Status.Devices, func(s api.AllocatedDeviceStatus) bool {
		d := device{driver: s.Driver, pool: s.Pool, name: s.Device}
		if s.ShareID != nil {
			d.share = *s.ShareID
		}
		return gone[d]
	})
	if len(c.Status.Devices) == 0 {
		c.Status.Devices = nil
	}
}

func allocated(c *api.ResourceClaim) map[device]bool {
	out := map[device]bool{}
	if c.Status.Allocation == nil {
		return out
	}
	for _, r := range c.Status.Allocation.Devices.Results {
		d := device{driver: r.Driver, pool: r.Pool, name: r.Device}
		if r.ShareID != nil {
			d.share = string(*r.ShareID)
		}
		out[d] = true
	}
	return out
}

func claimTemplateKind() *resource.Kind {
	k := resource.Declare(resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"), "resourceclaimtemplates", "resourceclaimtemplate")
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	k.Rules = resource.Strategy[api.ResourceClaimTemplate]{
		PrepareCreate: func(t *api.ResourceClaimTemplate) { resourceclaimspec.DropDisabledFields(&t.Spec.Spec, nil) },
		PrepareUpdate: func(t, old *api.ResourceClaimTemplate) {
			resourceclaimspec.DropDisabledFields(&t.Spec.Spec, &old.Spec.Spec)
		},
		ValidateCreate: validation.ValidateResourceClaimTemplate,
		ValidateUpdate: func(t, old *api.ResourceClaimTemplate) field.ErrorList {
			return append(validation.ValidateResourceClaimTemplate(t), validation.ValidateResourceClaimTemplateUpdate(t, old)...)
		},
	}.Rules()
	return k
}

// Package devices decides who may claim devices with administrator's access: claims in namespaces that an administrator has labelled
// for it. Such access overrides the allocation to others.
package devices

import (
	"context"
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Devices checks claims. It is immutable.
type Devices struct{ objects control.Reader }

// New returns a check that reads Namespaces from objects.
func New(objects control.Reader) *Devices { return &Devices{objects} }

// CheckAdminAccess refuses a claim, a template of claims or an allocation with administrator's access in a namespace without
// the label. What has it already may keep it: specs and allocations are immutable.
func (d *Devices) CheckAdminAccess(_ context.Context, a *registry.AdmissionRequest) error {
	var path *field.Path
	switch obj := a.Object.(type) {
	case *resourcev1.ResourceClaim:
		if a.Subresource == "status" {
			old, _ := a.Old.(*resourcev1.ResourceClaim)
			if old == nil || allocated(&old.Status) == nil {
				path = allocated(&obj.Status)
			}
		} else if a.Operation == registry.OpCreate && a.Subresource == "" {
			path = requested(obj.Spec.Devices.Requests, field.NewPath("spec"))
		}
	case *resourcev1.ResourceClaimTemplate:
		if a.Operation == registry.OpCreate && a.Subresource == "" {
			path = requested(obj.Spec.Spec.Devices.Requests, field.NewPath("spec"))
		}
	}
	if path == nil {
		return nil
	}
	ns, ok := d.objects.Get(kube.Namespace, "", a.Object.GetNamespace())
	if ok && ns.GetLabels()[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
		return nil
	}
	return kube.NewInvalid(a.Target.Kind.GVK.GroupKind(), a.Object.GetName(), field.ErrorList{field.Forbidden(path,
		fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))})
}

// requested returns where the first request asks for the access, nil when none does. Upstream names the same path for a template.
func requested(requests []resourcev1.DeviceRequest, spec *field.Path) *field.Path {
	for i, r := range requests {
		if r.Exactly != nil && r.Exactly.AdminAccess != nil && *r.Exactly.AdminAccess {
			return spec.Child("devices", "requests").Index(i).Child("adminAccess")
		}
	}
	return nil
}

// allocated returns where the allocation has the access, nil when it has none.
func allocated(s *resourcev1.ResourceClaimStatus) *field.Path {
	if s.Allocation == nil {
		return nil
	}
	for i, r := range s.Allocation.Devices.Results {
		if r.AdminAccess != nil && *r.AdminAccess {
			return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
		}
	}
	return nil
}

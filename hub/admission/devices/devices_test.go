package devices_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission/devices"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TestAdminAccess checks that only a namespace's label lets its claims override the allocation to others.
func TestAdminAccess(t *testing.T) {
	d := devices.New(controltest.New(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "plain"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "admin", Labels: map[string]string{"resource.kubernetes.io/admin-access": "true"}}}))
	yes := true
	asks := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
		{Name: "a", Exactly: &resourcev1.ExactDeviceRequest{}}, {Name: "b", Exactly: &resourcev1.ExactDeviceRequest{AdminAccess: &yes}}}}}
	claim := func(namespace string, spec resourcev1.ResourceClaimSpec, granted bool) *resourcev1.ResourceClaim {
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "c"}, Spec: spec}
		if granted {
			c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
				Results: []resourcev1.DeviceRequestAllocationResult{{Request: "b", AdminAccess: &yes}}}}
		}
		return c
	}
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "plain", Name: "c"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: asks}}
	const why = ": Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
	for name, c := range map[string]struct {
		obj, old  kube.Object
		sub, want string
	}{
		"none":                        {obj: claim("plain", resourcev1.ResourceClaimSpec{}, false)},
		"a claim":                     {obj: claim("plain", asks, false), want: `K.g "c" is invalid: spec.devices.requests[1].adminAccess` + why},
		"a claim in a labelled one":   {obj: claim("admin", asks, false)},
		"a claim in no namespace":     {obj: claim("gone", asks, false), want: `K.g "c" is invalid: spec.devices.requests[1].adminAccess` + why},
		"a template":                  {obj: template, want: `K.g "c" is invalid: spec.devices.requests[1].adminAccess` + why},
		"an update":                   {obj: claim("plain", asks, false), old: claim("plain", asks, false)},
		"an allocation":               {obj: claim("plain", asks, true), old: claim("plain", asks, false), sub: "status", want: `K.g "c" is invalid: status.allocation.devices.results[0].adminAccess` + why},
		"an allocation that it has":   {obj: claim("plain", asks, true), old: claim("plain", asks, true), sub: "status"},
		"a config map, of all things": {obj: &corev1.ConfigMap{}},
	} {
		a := &registry.AdmissionRequest{Operation: registry.OpCreate, Object: c.obj, Old: c.old}
		if c.old != nil {
			a.Operation = registry.OpUpdate
		}
		a.Target = resource.Target{Kind: &resource.Kind{GVK: kube.GVK{Group: "g", Version: "v1", Kind: "K"}}, Subresource: c.sub}
		got := ""
		if err := d.CheckAdminAccess(t.Context(), a); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
}

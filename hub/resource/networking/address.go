package networking

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/apis/networking/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func ipAddressKind() *resource.Kind {
	k := resource.Declare(kube.IPAddress, "ipaddresses", "ipaddress")
	k.ClusterScoped()
	k.ShortNames = []string{"ip"}
	k.Rules = resource.Strategy[networking.IPAddress]{
		ValidateCreate: validation.ValidateIPAddress,
		ValidateUpdate: func(a, old *networking.IPAddress) field.ErrorList {
			return append(validation.ValidateIPAddress(a), validation.ValidateIPAddressUpdate(a, old)...)
		},
	}.Rules()
	return k
}

func serviceCIDRKind() *resource.Kind {
	k := resource.Declare(kube.ServiceCIDR, "servicecidrs", "servicecidr")
	k.ClusterScoped()
	k.Inert = "addresses of Services come from the ServiceCIDR kubernetes alone"
	s := resource.Strategy[networking.ServiceCIDR]{
		PrepareCreate:  func(c *networking.ServiceCIDR) { c.Status = networking.ServiceCIDRStatus{} },
		PrepareUpdate:  func(c, old *networking.ServiceCIDR) { c.Status = *old.Status.DeepCopy() },
		ValidateCreate: validation.ValidateServiceCIDR,
		ValidateUpdate: validation.ValidateServiceCIDRUpdate,
	}
	k.Rules = s.Rules()
	s.PrepareUpdate = func(c, old *networking.ServiceCIDR) {
		copied := old.DeepCopy()
		c.Spec = copied.Spec
		metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &copied.ObjectMeta)
	}
	s.ValidateUpdate = validation.ValidateServiceCIDRStatusUpdate
	k.Subresources["status"] = s.Status(k)
	return k
}

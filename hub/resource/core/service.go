package core

import (
	"context"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	serviceapi "k8s.io/kubernetes/pkg/api/service"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// serviceKind declares Services. Cluster IPs and node ports are allocated by admission, before these rules run.
func serviceKind() *resource.Kind {
	k := resource.Declare(kube.Service, "services", "service")
	k.ShortNames = []string{"svc"}
	k.Categories = []string{"all"}
	k.ReturnDeletedObject = true
	k.Rules = resource.Strategy[api.Service]{
		PrepareCreate: func(svc *api.Service) {
			svc.Status = api.ServiceStatus{}
			if svc.Spec.ClusterIP != "" && len(svc.Spec.ClusterIPs) == 0 {
				svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
			}
			dropInternalPolicy(svc)
		},
		PrepareUpdate: func(svc, old *api.Service) {
			svc.Status = *old.Status.DeepCopy()
			keepAllocated(svc, old)
			alignClusterIPs(svc, old)
			dropForType(svc, old)
			dropInternalPolicy(svc)
		},
		ValidateCreate: validation.ValidateServiceCreate,
		ValidateUpdate: validation.ValidateServiceUpdate,
		WarnCreate: func(_ context.Context, svc *api.Service) []string {
			return serviceapi.GetWarningsForService(svc, nil)
		},
		WarnUpdate: func(_ context.Context, svc, old *api.Service) []string {
			return serviceapi.GetWarningsForService(svc, old)
		},
		CreateOnUpdate: true,
	}.Rules()
	k.Subresources["status"] = resource.Strategy[api.Service]{
		PrepareUpdate:  func(svc, old *api.Service) { svc.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateServiceStatusUpdate,
		WarnUpdate: func(_ context.Context, svc, _ *api.Service) []string {
			var out []string
			for i, ingress := range svc.Status.LoadBalancer.Ingress {
				if ingress.IP != "" {
					out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(i), ingress.IP)...)
				}
			}
			return out
		},
	}.Status(k)
	k.SelectFields(func(obj kube.Object, s fields.Set) {
		svc := obj.(*corev1.Service)
		s["spec.clusterIP"] = svc.Spec.ClusterIP
		s["spec.type"] = string(svc.Spec.Type)
	}, "spec.clusterIP", "spec.type")
	k.Indexes["clusterIP"] = func(obj kube.Object) []string {
		ips := obj.(*corev1.Service).Spec.ClusterIPs
		return slices.DeleteFunc(slices.Clone(ips), func(ip string) bool { return ip == corev1.ClusterIPNone })
	}
	k.Indexes["nodePort"] = func(obj kube.Object) []string {
		spec := &obj.(*corev1.Service).Spec
		var ports []string
		for _, port := range append(portNumbers(spec.Ports), spec.HealthCheckNodePort) {
			if s := strconv.Itoa(int(port)); port != 0 && !slices.Contains(ports, s) {
				ports = append(ports, s)
			}
		}
		return ports
	}
	return k
}

func portNumbers(ports []corev1.ServicePort) []int32 {
	out := make([]int32, len(ports))
	for i, p := range ports {
		out[i] = p.NodePort
	}
	return out
}

// KeepAllocated fills into a Service update what the writer left out and Petrel had allocated before: the cluster IPs,
// node ports and health check port of old. So a manifest without them can be applied again. old is only read.
func KeepAllocated(svc, old *corev1.Service) {
	in, oldIn := resource.Internal[api.Service](svc), resource.Internal[api.Service](old)
	keepAllocated(in, oldIn)
	alignClusterIPs(in, oldIn)
	dropForType(in, oldIn)
	resource.External(in, svc)
}

// ValidateClusterIPs checks the address fields of a Service, which depend on each other, before addresses are allocated.
// old is nil for a creation.
func ValidateClusterIPs(svc, old *corev1.Service) field.ErrorList {
	var before *api.Service
	if old != nil {
		before = resource.Internal[api.Service](old)
	}
	return validation.ValidateServiceClusterIPsRelatedFields(resource.Internal[api.Service](svc), before)
}

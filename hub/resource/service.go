package resource

import (
	"context"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	serviceapi "k8s.io/kubernetes/pkg/api/service"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/internal/kube"
)

// serviceKind declares Services. Cluster IPs and node ports are allocated by admission, before these rules run.
func serviceKind() *Kind {
	k := declare(kube.Service, "services", "service",
		func() kube.Object { return &corev1.Service{} }, func() runtime.Object { return &corev1.ServiceList{} })
	k.ShortNames = []string{"svc"}
	k.Categories = []string{"all"}
	k.ReturnDeletedObject = true
	k.Rules = strategy[api.Service]{
		prepareCreate: func(svc *api.Service) {
			svc.Status = api.ServiceStatus{}
			if svc.Spec.ClusterIP != "" && len(svc.Spec.ClusterIPs) == 0 {
				svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
			}
			dropInternalPolicy(svc)
		},
		prepareUpdate: func(svc, old *api.Service) {
			svc.Status = *old.Status.DeepCopy()
			keepAllocated(svc, old)
			alignClusterIPs(svc, old)
			dropForType(svc, old)
			dropInternalPolicy(svc)
		},
		validateCreate: validation.ValidateServiceCreate,
		validateUpdate: validation.ValidateServiceUpdate,
		warnCreate: func(_ context.Context, svc *api.Service) []string {
			return serviceapi.GetWarningsForService(svc, nil)
		},
		warnUpdate: func(_ context.Context, svc, old *api.Service) []string {
			return serviceapi.GetWarningsForService(svc, old)
		},
		createOnUpdate: true,
	}.rules()
	k.Subresources["status"] = strategy[api.Service]{
		prepareUpdate:  func(svc, old *api.Service) { svc.Spec = *old.Spec.DeepCopy() },
		validateUpdate: validation.ValidateServiceStatusUpdate,
		warnUpdate: func(_ context.Context, svc, _ *api.Service) []string {
			var out []string
			for i, ingress := range svc.Status.LoadBalancer.Ingress {
				if ingress.IP != "" {
					out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(i), ingress.IP)...)
				}
			}
			return out
		},
	}.status(k)
	k.selectFields(func(obj kube.Object, s fields.Set) {
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
	in, oldIn := internal[api.Service](svc), internal[api.Service](old)
	keepAllocated(in, oldIn)
	alignClusterIPs(in, oldIn)
	dropForType(in, oldIn)
	external(in, svc)
}

// ValidateClusterIPs checks the address fields of a Service, which depend on each other, before addresses are allocated.
// old is nil for a creation.
func ValidateClusterIPs(svc, old *corev1.Service) field.ErrorList {
	var before *api.Service
	if old != nil {
		before = internal[api.Service](old)
	}
	return validation.ValidateServiceClusterIPsRelatedFields(internal[api.Service](svc), before)
}

package quota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/internal/kube"
)

var serviceNames = map[corev1.ResourceName]bool{
	countName(corev1.Resource("services")): true, corev1.ResourceServices: true,
	corev1.ResourceServicesNodePorts: true, corev1.ResourceServicesLoadBalancers: true,
}

func limitsServices(name corev1.ResourceName) bool { return serviceNames[name] }

// serviceUsage returns what a Service takes. Node ports are counted as they are asked for: allocation comes later.
func serviceUsage(obj kube.Object, _ time.Time) corev1.ResourceList {
	out := corev1.ResourceList{countName(corev1.Resource("services")): one(), corev1.ResourceServices: one()}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return out
	}
	ports := 0
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(svc.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = one()
		ports = len(svc.Spec.Ports)
		if allocate := svc.Spec.AllocateLoadBalancerNodePorts; allocate != nil && !*allocate {
			ports = 0
			for _, p := range svc.Spec.Ports {
				if p.NodePort != 0 {
					ports++
				}
			}
		}
	}
	if ports > 0 {
		out[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(int64(ports), resource.DecimalSI)
	}
	return out
}

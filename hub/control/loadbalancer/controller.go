// Package loadbalancer keeps in the status of Services of type LoadBalancer where they are reached: at the nodes' addresses, on each
// of which the service proxy listens. So `kubectl get` shows an address and `helm install --wait` returns.
// Services with a loadBalancerClass belong to another implementation and are left alone.
package loadbalancer

import (
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// maxIngress bounds the addresses in one status. Any of them will do, and with those of a thousand nodes each node that goes
// dark or comes back would rewrite 50 KB for every Service.
const maxIngress = 16

// controller reconciles Services.
type controller struct{ client control.Client }

// New returns the controller's loop.
func New(client control.Client, log *slog.Logger) *control.Loop {
	c := &controller{client}
	return &control.Loop{
		Name: "loadbalancer", Client: client, Log: log,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Service, Keys: serviceKeys},
			{GVK: kube.Node, Keys: c.nodeKeys},
			{GVK: kube.EndpointSlice, Keys: c.sliceKeys},
		},
	}
}

// balanced reports whether Petrel is the Service's load balancer.
func balanced(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.LoadBalancerClass == nil && svc.DeletionTimestamp == nil
}

// serviceKeys returns the Service when it needs addresses, or has some that it may need no more.
func serviceKeys(ch control.Change) []control.Key {
	svc, ok := ch.New.(*corev1.Service)
	if !ok || !balanced(svc) && len(svc.Status.LoadBalancer.Ingress) == 0 {
		return nil
	}
	return []control.Key{control.KeyOf(svc)}
}

// nodeKeys returns all Services of the type when a node comes, goes, or changes its addresses.
func (c *controller) nodeKeys(ch control.Change) []control.Key {
	if slices.Equal(addressesOf(ch.Old), addressesOf(ch.New)) {
		return nil
	}
	var keys []control.Key
	for _, svc := range control.List[*corev1.Service](c.client, kube.Service, "") {
		if balanced(svc) {
			keys = append(keys, control.KeyOf(svc))
		}
	}
	return keys
}

// sliceKeys returns the slice's Service if only nodes with endpoints serve it.
func (c *controller) sliceKeys(ch control.Change) []control.Key {
	o := ch.Object()
	key := control.Key{Namespace: o.GetNamespace(), Name: o.GetLabels()[discoveryv1.LabelServiceName]}
	svc, ok := control.Get[*corev1.Service](c.client, kube.Service, key.Namespace, key.Name)
	if !ok || !balanced(svc) || !local(svc) {
		return nil
	}
	return []control.Key{key}
}

// local reports whether only nodes with endpoints serve the Service from outside.
func local(svc *corev1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// addressesOf returns where a node serves load balancers: its external addresses, otherwise its internal ones; none while it is
// not ready or is excluded.
func addressesOf(o kube.Object) (out []string) {
	n, ok := o.(*corev1.Node)
	if !ok || n == nil || n.DeletionTimestamp != nil {
		return nil
	}
	if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded {
		return nil
	}
	if !kube.IsConditionTrue(n.Status.Conditions, corev1.NodeReady) {
		return nil
	}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeExternalIP, corev1.NodeInternalIP} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind && !slices.Contains(out, a.Address) {
				out = append(out, a.Address)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

func (c *controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	svc, ok := control.Get[*corev1.Service](c.client, kube.Service, key.Namespace, key.Name)
	if !ok || svc.Spec.LoadBalancerClass != nil || svc.DeletionTimestamp != nil {
		return 0, nil
	}
	now := svc.DeepCopy()
	now.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	if balanced(svc) {
		now.Status.LoadBalancer.Ingress = c.ingress(svc)
	}
	if len(now.Status.LoadBalancer.Ingress) == 0 && balanced(svc) && len(c.client.List(kube.Node, "")) > 0 && !local(svc) {
		// All nodes are dark at the moment. They go on serving, so the addresses stay.
		return 0, nil
	}
	if equality.Semantic.DeepEqual(svc.Status, now.Status) {
		return 0, nil
	}
	_, err := c.client.Update(ctx, now, "status")
	return 0, control.IgnoreNotFound(err)
}

// ingress returns addresses of nodes that serve, in the order of the nodes' names. When there are more than a status may have,
// those that it has already stay.
func (c *controller) ingress(svc *corev1.Service) []corev1.LoadBalancerIngress {
	serving := c.nodesWithEndpoints(svc)
	var all []string
	seen := map[string]bool{}
	for _, n := range control.List[*corev1.Node](c.client, kube.Node, "") {
		if local(svc) && !serving[n.Name] {
			continue
		}
		for _, ip := range addressesOf(n) {
			if !seen[ip] {
				seen[ip] = true
				all = append(all, ip)
			}
		}
	}
	kept := map[string]bool{}
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if seen[i.IP] && len(kept) < maxIngress {
			kept[i.IP] = true
		}
	}
	room := maxIngress - len(kept)
	mode := corev1.LoadBalancerIPModeVIP
	var out []corev1.LoadBalancerIngress
	for _, ip := range all {
		if !kept[ip] {
			if room == 0 {
				continue
			}
			room--
		}
		out = append(out, corev1.LoadBalancerIngress{IP: ip, IPMode: &mode})
	}
	return out
}

// nodesWithEndpoints returns the nodes with a ready endpoint of a local Service; it is empty for others.
func (c *controller) nodesWithEndpoints(svc *corev1.Service) map[string]bool {
	out := map[string]bool{}
	if !local(svc) {
		return out
	}
	for _, s := range control.List[*discoveryv1.EndpointSlice](c.client, kube.EndpointSlice, svc.Namespace) {
		if s.Labels[discoveryv1.LabelServiceName] != svc.Name {
			continue
		}
		for _, e := range s.Endpoints {
			if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				out[*e.NodeName] = true
			}
		}
	}
	return out
}

// Package bootstrap keeps what every cluster has from its first second: the namespaces default, kube-system, kube-public and
// kube-node-lease, the system PriorityClasses, the Service default/kubernetes with the hub itself behind it, the Service kube-dns,
// the first StorageClass, and what the hub publishes of itself.
package bootstrap

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Namespaces that exist in every cluster.
var Namespaces = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

const (
	serviceName = "kubernetes"
	portName    = "https"
	dnsName     = "kube-dns"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	// Address is where pods reach the hub's API. While it is unspecified or a loopback address, which no pod could
	// reach, the Service has no endpoints.
	Address netip.AddrPort
	// ServiceIP is the Service's address: the first of the service CIDR.
	ServiceIP netip.Addr
	// DNSIP is the address of the cluster's DNS, which each node answers itself. Invalid: no Service for it.
	DNSIP netip.Addr
	// Keep are ConfigMaps and Secrets that are kept with exactly this data.
	Keep []kube.Object
	Log  *slog.Logger
}

// Controller keeps these objects as they should be, also when a user deletes or edits them.
type Controller struct {
	cfg  Config // does not change after New
	loop *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg}
	one := []control.Key{{Name: "cluster"}}
	named := func(ch control.Change) []control.Key {
		switch o := ch.Object(); [2]string{o.GetNamespace(), o.GetName()} {
		case [2]string{metav1.NamespaceDefault, serviceName}, [2]string{metav1.NamespaceSystem, dnsName}:
			return one
		}
		return nil
	}
	kept := func(ch control.Change) []control.Key {
		for _, k := range cfg.Keep {
			if o := ch.Object(); ch.GVK == control.GVKOf(k) && o.GetNamespace() == k.GetNamespace() && o.GetName() == k.GetName() {
				return one
			}
		}
		return nil
	}
	c.loop = &control.Loop{
		Name: "bootstrap", Client: cfg.Client, Log: cfg.Log,
		Reconcile: func(ctx context.Context, _ control.Key) (time.Duration, error) { return 0, c.reconcile(ctx) },
		Sources: []control.Source{
			{GVK: kube.Namespace, Keys: func(ch control.Change) []control.Key {
				if ch.New == nil || ch.Old == nil && ch.New.GetName() == metav1.NamespaceSystem {
					return one
				}
				return nil
			}},
			{GVK: kube.PriorityClass, Keys: func(ch control.Change) []control.Key {
				if _, ok := kube.SystemPriorities[ch.Object().GetName()]; ok && ch.New == nil {
					return one
				}
				return nil
			}},
			{GVK: kube.Service, Keys: named},
			{GVK: kube.EndpointSlice, Keys: named},
			{GVK: kube.Endpoints, Keys: named},
			{GVK: kube.ConfigMap, Keys: kept},
			{GVK: kube.Secret, Keys: kept},
		},
	}
	c.loop.Enqueue(one[0])
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context) error {
	var errs []error
	for _, name := range Namespaces {
		if _, ok := c.cfg.Client.Get(kube.Namespace, "", name); ok {
			continue
		}
		_, err := c.cfg.Client.Create(ctx, &corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name}})
		if !apierrors.IsAlreadyExists(err) {
			errs = append(errs, err)
		}
	}
	if err := control.JoinErrors(errs...); err != nil {
		return err
	}
	for name, value := range kube.SystemPriorities {
		errs = append(errs, c.ensure(ctx, priorityClass(name, value), func(now, want kube.Object) bool { return true })) // its value is immutable
	}
	for _, k := range c.cfg.Keep {
		errs = append(errs, c.ensure(ctx, k.DeepCopyObject().(kube.Object), fitData))
	}
	if c.cfg.DNSIP.IsValid() {
		errs = append(errs, c.ensure(ctx, c.dnsService(), fitPorts))
	}
	return control.JoinErrors(
		control.JoinErrors(errs...),
		c.makeStorageClass(ctx),
		c.ensure(ctx, c.service(), fitPorts),
		c.ensure(ctx, c.slice(), func(now, want kube.Object) bool {
			n, w := now.(*discoveryv1.EndpointSlice), want.(*discoveryv1.EndpointSlice)
			same := equality.Semantic.DeepEqual(n.Endpoints, w.Endpoints) && equality.Semantic.DeepEqual(n.Ports, w.Ports)
			n.Endpoints, n.Ports = w.Endpoints, w.Ports
			return same
		}),
		c.ensure(ctx, c.endpoints(), func(now, want kube.Object) bool {
			n, w := now.(*corev1.Endpoints), want.(*corev1.Endpoints)
			same := equality.Semantic.DeepEqual(n.Subsets, w.Subsets)
			n.Subsets = w.Subsets
			return same
		}),
	)
}

// fitPorts copies the ports of a Service, and the labels that it is found by. It reports whether they were equal already.
func fitPorts(now, want kube.Object) bool {
	n, w := now.(*corev1.Service), want.(*corev1.Service)
	same := equality.Semantic.DeepEqual(n.Spec.Ports, w.Spec.Ports)
	n.Spec.Ports = w.Spec.Ports
	for k, v := range w.Labels {
		if n.Labels[k] != v {
			same = false
			metav1.SetMetaDataLabel(&n.ObjectMeta, k, v)
		}
	}
	return same
}

// fitData copies the data of a ConfigMap or a Secret. It reports whether it was equal already.
func fitData(now, want kube.Object) bool {
	switch w := want.(type) {
	case *corev1.ConfigMap:
		n := now.(*corev1.ConfigMap)
		same := equality.Semantic.DeepEqual(n.Data, w.Data)
		n.Data = w.Data
		return same
	case *corev1.Secret:
		n := now.(*corev1.Secret)
		same := equality.Semantic.DeepEqual(n.Data, w.Data)
		n.Data = w.Data
		return same
	}
	return true
}

// ensure creates want, or makes the stored object like it: fit changes a copy of that, and reports whether nothing had to change.
func (c *Controller) ensure(ctx context.Context, want kube.Object, fit func(now, want kube.Object) bool) error {
	old, ok := c.cfg.Client.Get(control.GVKOf(want), want.GetNamespace(), want.GetName())
	if !ok {
		_, err := c.cfg.Client.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			return nil // the cache is behind; the object's change queues the key again
		}
		return err
	}
	now := old.DeepCopyObject().(kube.Object)
	if fit(now, want) {
		return nil
	}
	_, err := c.cfg.Client.Update(ctx, now, "")
	return control.IgnoreNotFound(err)
}

// priorityClass is one that every cluster has.
func priorityClass(name string, value int32) *schedulingv1.PriorityClass {
	policy := corev1.PreemptLowerPriority
	return &schedulingv1.PriorityClass{
		TypeMeta:         metav1.TypeMeta{APIVersion: "scheduling.k8s.io/v1", Kind: "PriorityClass"},
		ObjectMeta:       metav1.ObjectMeta{Name: name},
		Value:            value,
		PreemptionPolicy: &policy,
		Description:      "Used for system critical pods: those without which a node, or the cluster, does not work.",
	}
}

func (c *Controller) service() *corev1.Service {
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: serviceName,
			Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       c.cfg.ServiceIP.String(),
			ClusterIPs:      []string{c.cfg.ServiceIP.String()},
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{Name: portName, Protocol: corev1.ProtocolTCP, Port: 443,
				TargetPort: intstr.FromInt32(int32(c.cfg.Address.Port()))}},
		},
	}
}

// dnsService returns the Service of the cluster's DNS, by which charts and tools find it. It has neither selector nor endpoints:
// every node answers at its address.
func (c *Controller) dnsService() *corev1.Service {
	port := func(name string, proto corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: proto, Port: 53, TargetPort: intstr.FromInt32(53)}
	}
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: dnsName,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       c.cfg.DNSIP.String(),
			ClusterIPs:      []string{c.cfg.DNSIP.String()},
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports:           []corev1.ServicePort{port("dns", corev1.ProtocolUDP), port("dns-tcp", corev1.ProtocolTCP)},
		},
	}
}

// reachable reports whether pods can have the address as an endpoint.
func (c *Controller) reachable() bool {
	a := c.cfg.Address.Addr()
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback()
}

func (c *Controller) slice() *discoveryv1.EndpointSlice {
	name, proto, port, ready := portName, corev1.ProtocolTCP, int32(c.cfg.Address.Port()), true
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: serviceName,
			Labels: map[string]string{discoveryv1.LabelServiceName: serviceName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &proto, Port: &port}},
	}
	if c.cfg.Address.Addr().Is6() {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	if c.reachable() {
		s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{c.cfg.Address.Addr().String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}
	}
	return s
}

func (c *Controller) endpoints() *corev1.Endpoints {
	e := &corev1.Endpoints{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: serviceName,
			Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
	}
	if c.reachable() {
		e.Subsets = []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: c.cfg.Address.Addr().String()}},
			Ports:     []corev1.EndpointPort{{Name: portName, Protocol: corev1.ProtocolTCP, Port: int32(c.cfg.Address.Port())}},
		}}
	}
	return e
}

// Package serviceaddress shows where the addresses of Services come from, and who has which: the ServiceCIDR "kubernetes", and an
// IPAddress for each cluster IP. The addresses themselves are allocated by admission, which reads the stored Services; these objects
// follow.
package serviceaddress

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// cidrName is the name of the ServiceCIDR that the hub was started with, in every cluster.
	cidrName = "kubernetes"
	// ipIndex finds Services by their cluster IPs.
	ipIndex = "clusterIP"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as kubernetes-service-cidr-controller
	CIDR   netip.Prefix   // where cluster IPs come from
	Log    *slog.Logger
}

// controller has two sorts of keys: cidrName, and addresses, which are no names of ServiceCIDRs.
type controller struct{ cfg Config }

// New returns the controller's loop.
func New(cfg Config) *control.Loop {
	c := &controller{cfg}
	l := &control.Loop{
		Name: "serviceaddress", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Service, Keys: serviceKeys},
			{GVK: kube.IPAddress, Keys: func(ch control.Change) []control.Key { return []control.Key{control.KeyOf(ch.Object())} }},
			{GVK: kube.ServiceCIDR, Keys: func(ch control.Change) []control.Key {
				if ch.Object().GetName() != cidrName {
					return nil
				}
				return []control.Key{{Name: cidrName}}
			}},
		},
	}
	l.Enqueue(control.Key{Name: cidrName})
	return l
}

// serviceKeys returns the addresses that a Service had and has. Where they are the same nothing has to be done.
func serviceKeys(ch control.Change) (keys []control.Key) {
	before, now := addresses(ch.Old), addresses(ch.New)
	if ch.Old != nil && ch.New != nil && ch.Old.GetUID() == ch.New.GetUID() && slices.Equal(before, now) {
		return nil
	}
	for _, ip := range append(before, now...) {
		keys = append(keys, control.Key{Name: ip})
	}
	return keys
}

func addresses(obj kube.Object) []string {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(svc.Spec.ClusterIPs), func(ip string) bool { return ip == "" || ip == corev1.ClusterIPNone })
}

func (c *controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	if key.Name == cidrName {
		return 0, c.keepCIDR(ctx)
	}
	return 0, c.keepAddress(ctx, key.Name)
}

// keepAddress makes the IPAddress of a Service's address, and deletes that of an address which no Service has any more.
func (c *controller) keepAddress(ctx context.Context, ip string) error {
	client := c.cfg.Client
	old, there := control.Get[*networkingv1.IPAddress](client, kube.IPAddress, "", ip)
	if there && old.Labels[networkingv1.LabelManagedBy] != kube.ServiceAddresses || there && old.DeletionTimestamp != nil {
		return nil
	}
	var want *networkingv1.IPAddress
	if owners := control.Index[*corev1.Service](client, kube.Service, ipIndex, ip); len(owners) > 0 {
		want = addressOf(ip, owners[0])
	}
	if there && (want == nil || old.Spec.ParentRef == nil || *old.Spec.ParentRef != *want.Spec.ParentRef) { // which is immutable
		err := client.Delete(ctx, kube.IPAddress, "", ip, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &old.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
		there = false
	}
	if want == nil || there {
		return nil
	}
	_, err := client.Create(ctx, want)
	if apierrors.IsAlreadyExists(err) {
		return nil // the cache is behind; the object's change queues the key again
	}
	return err
}

func addressOf(ip string, svc *corev1.Service) *networkingv1.IPAddress {
	family := corev1.IPv4Protocol
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Is6() {
		family = corev1.IPv6Protocol
	}
	return &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: kube.IPAddress.Kind},
		ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family), networkingv1.LabelManagedBy: kube.ServiceAddresses}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: svc.Namespace, Name: svc.Name}},
	}
}

// keepCIDR makes the ServiceCIDR and says that it is ready. One that a user has made of another network stays as it is.
func (c *controller) keepCIDR(ctx context.Context) error {
	cidrs := []string{c.cfg.CIDR.Masked().String()}
	now, ok := control.Get[*networkingv1.ServiceCIDR](c.cfg.Client, kube.ServiceCIDR, "", cidrName)
	if !ok {
		_, err := c.cfg.Client.Create(ctx, &networkingv1.ServiceCIDR{
			TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: kube.ServiceCIDR.Kind},
			ObjectMeta: metav1.ObjectMeta{Name: cidrName},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
		})
		if apierrors.IsAlreadyExists(err) {
			return nil // the cache is behind, as above
		}
		return err
	}
	if now.DeletionTimestamp != nil {
		return nil
	}
	if !slices.Equal(now.Spec.CIDRs, cidrs) {
		c.cfg.Events.Event(now, corev1.EventTypeWarning, "KubernetesDefaultServiceCIDRInconsistent",
			"The default ServiceCIDR %v does not match the controller flag configurations %s", now.Spec.CIDRs, cidrs)
		return nil
	}
	ready := meta.FindStatusCondition(now.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	if ready != nil && ready.Status != metav1.ConditionUnknown {
		return nil // an administrator may have set False
	}
	up := now.DeepCopy()
	meta.SetStatusCondition(&up.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady,
		Status: metav1.ConditionTrue, Message: "Kubernetes default Service CIDR is ready"})
	_, err := c.cfg.Client.Update(ctx, up, "status")
	return control.IgnoreNotFound(err)
}

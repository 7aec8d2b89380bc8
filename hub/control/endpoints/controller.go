// Package endpoints publishes, for each Service with a selector, which pods serve it: in EndpointSlices, which proxies and DNS read,
// and in the Endpoints object that older tools read. Services without a selector, and slices that others keep, are left alone.
package endpoints

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// controller reconciles Services.
type controller struct {
	client   control.Client
	selected *selection // never nil
}

// New returns the controller's loop.
func New(client control.Client, log *slog.Logger) *control.Loop {
	c := &controller{client, newSelection()}
	return &control.Loop{
		Name: "endpoints", Client: client, Log: log, Workers: 2,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Service, Keys: c.serviceKeys},
			{GVK: kube.Pod, Keys: c.podKeys},
			{GVK: kube.EndpointSlice, Keys: sliceKeys},
			{GVK: kube.Endpoints},
			{GVK: kube.Node, Keys: c.nodeKeys},
		},
	}
}

// serviceKeys returns the Service itself, unless only its status has changed.
func (c *controller) serviceKeys(ch control.Change) []control.Key {
	key := control.KeyOf(ch.Object())
	svc, _ := ch.New.(*corev1.Service)
	if svc != nil && !managed(svc) {
		svc = nil
	}
	c.selected.service(key, svc, func() []kube.Object { return c.client.List(kube.Pod, key.Namespace) })
	return control.OwnKeyUnlessStatus(ch)
}

// podKeys returns the Services that select the pod or did, when anything changed that endpoints show.
func (c *controller) podKeys(ch control.Change) []control.Key {
	if ch.Old != nil && ch.New != nil && sameEndpoint(ch.Old.(*corev1.Pod), ch.New.(*corev1.Pod)) {
		return nil
	}
	var before, now map[string]string
	if ch.Old != nil {
		before = ch.Old.GetLabels()
	}
	if ch.New != nil {
		now = ch.New.GetLabels()
	}
	o := ch.Object()
	return c.selected.pod(o.GetNamespace(), o.GetName(), before, now, ch.New == nil)
}

func sameEndpoint(a, b *corev1.Pod) bool {
	return a.UID == b.UID && a.Spec.NodeName == b.Spec.NodeName && a.Status.PodIP == b.Status.PodIP &&
		control.PodReady(a) == control.PodReady(b) && control.PodFinished(a) == control.PodFinished(b) &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		equality.Semantic.DeepEqual(a.Status.PodIPs, b.Status.PodIPs) && equality.Semantic.DeepEqual(a.Labels, b.Labels)
}

// managed reports whether this controller keeps the Service's endpoints. Without a selector a user keeps them, and an ExternalName
// has none.
func managed(svc *corev1.Service) bool {
	return len(svc.Spec.Selector) > 0 && svc.Spec.Type != corev1.ServiceTypeExternalName
}

// sliceKeys returns the Services of a slice before and after a change, so that what others change in it is restored.
func sliceKeys(ch control.Change) []control.Key {
	var keys []control.Key
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if obj == nil || obj.GetLabels()[discoveryv1.LabelManagedBy] != ManagedBy {
			continue
		}
		if name := obj.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
			keys = append(keys, control.Key{Namespace: obj.GetNamespace(), Name: name})
		}
	}
	return keys
}

// nodeKeys returns the Services with pods on a node whose zone becomes known or changes.
func (c *controller) nodeKeys(ch control.Change) []control.Key {
	zoneOf := func(o kube.Object) string {
		if o == nil {
			return ""
		}
		return o.GetLabels()[corev1.LabelTopologyZone]
	}
	if zoneOf(ch.Old) == zoneOf(ch.New) {
		return nil
	}
	var keys []control.Key
	for _, p := range c.client.Index(kube.Pod, control.NodeIndex, ch.Object().GetName()) {
		keys = append(keys, c.selected.of(p)...)
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	svc, ok := control.Get[*corev1.Service](c.client, kube.Service, key.Namespace, key.Name)
	if !ok {
		return 0, c.clear(ctx, key) // slices have owner references; Endpoints, as in Kubernetes, have none
	}
	if !managed(svc) || svc.DeletionTimestamp != nil || control.NamespaceEnding(c.client, svc.Namespace) {
		return 0, nil
	}
	names, wait, ok := c.selected.begin(time.Now(), svc)
	if !ok {
		return wait, nil
	}
	pods := make([]*corev1.Pod, 0, len(names))
	selector := selected{selector: svc.Spec.Selector}
	for _, name := range names {
		if p, ok := control.Get[*corev1.Pod](c.client, kube.Pod, svc.Namespace, name); ok && selector.matches(p.Labels) {
			pods = append(pods, p)
		}
	}
	writes := planSlices(svc, c.slices(svc), groupsOf(svc, pods, c.zone))
	old, ok := control.Get[*corev1.Endpoints](c.client, kube.Endpoints, svc.Namespace, svc.Name)
	if !ok {
		old = nil
	}
	if w := planLegacy(svc, pods, old); w != nil {
		writes = append(writes, *w)
	}
	if len(writes) == 0 {
		return 0, nil
	}
	err := c.client.Commit(ctx, writes) // slices and Endpoints together: no reader sees them contradict each other
	if err != nil {
		c.selected.failed(key)
	}
	switch {
	case apierrors.IsAlreadyExists(err):
		// Made by the step before, and not in the cache yet; its change queues the key again. If it belongs to
		// another controller, the error is worth a log line.
		return 0, err
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return 0, nil // everything in it is about to be deleted
	}
	return 0, control.IgnoreNotFound(err)
}

// slices returns those of the Service that this controller keeps.
func (c *controller) slices(svc *corev1.Service) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, s := range control.Index[*discoveryv1.EndpointSlice](c.client, kube.EndpointSlice, control.OwnerIndex, string(svc.UID)) {
		if s.Labels[discoveryv1.LabelManagedBy] == ManagedBy && s.DeletionTimestamp == nil {
			out = append(out, s)
		}
	}
	return out
}

// zone returns a node's zone, "" when it has none or is not known.
func (c *controller) zone(node string) string {
	if n, ok := c.client.Get(kube.Node, "", node); ok {
		return n.GetLabels()[corev1.LabelTopologyZone]
	}
	return ""
}

// clear removes the Endpoints of a Service that is gone; its slices go with their owner.
func (c *controller) clear(ctx context.Context, key control.Key) error {
	e, ok := c.client.Get(kube.Endpoints, key.Namespace, key.Name)
	if !ok || e.GetLabels()[legacyManagedByLabel] != legacyManagedBy {
		return nil
	}
	uid := e.GetUID()
	err := c.client.Delete(ctx, kube.Endpoints, key.Namespace, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	return control.IgnoreNotFound(err)
}

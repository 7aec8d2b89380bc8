// Package endpointmirror copies Endpoints that a user has made, for a Service without a selector, into EndpointSlices, which proxies
// and DNS read: so a database outside of the cluster gets a name in it. It follows
// Kubernetes' EndpointSliceMirroring controller: the slices have the label endpointslice.kubernetes.io/managed-by, belong
// to the Endpoints, hold at most a thousand addresses of each subset, and go with Endpoints or Service. Endpoints with
// the label endpointslice.kubernetes.io/skip-mirror or of a leader election are left alone.
package endpointmirror

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// ManagedBy is the value of the managed-by label on slices that this controller keeps.
	ManagedBy = "endpointslicemirroring-controller.k8s.io"
	// maxPerSubset is how many addresses of a subset are mirrored, as in Kubernetes.
	maxPerSubset = 1000
	// leaderAnnotation marks Endpoints by which old programs elect a leader; they change every few seconds.
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// controller mirrors Endpoints. Its keys are those of Services, whose name the Endpoints have.
type controller struct{ client control.Client }

// New returns the controller's loop.
func New(client control.Client, log *slog.Logger) *control.Loop {
	c := &controller{client}
	return &control.Loop{
		Name: "endpointmirror", Client: client, Log: log,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Service, Keys: control.OwnKeyUnlessStatus},
			{GVK: kube.Endpoints, Keys: endpointsKeys},
			{GVK: kube.EndpointSlice, Keys: sliceKeys},
		},
	}
}

// endpointsKeys returns no key for Endpoints that are mirrored neither before nor after the change: leader elections change theirs
// all the time.
func endpointsKeys(ch control.Change) []control.Key {
	for _, o := range []kube.Object{ch.Old, ch.New} {
		if o != nil && mirrored(o) {
			return []control.Key{control.KeyOf(ch.Object())}
		}
	}
	return nil
}

// sliceKeys returns the Services of a mirrored slice before and after a change, so that what others change in it is restored.
func sliceKeys(ch control.Change) []control.Key {
	var keys []control.Key
	for _, o := range []kube.Object{ch.Old, ch.New} {
		if o != nil && o.GetLabels()[discoveryv1.LabelManagedBy] == ManagedBy {
			if name := o.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
				keys = append(keys, control.Key{Namespace: o.GetNamespace(), Name: name})
			}
		}
	}
	return keys
}

// mirrored reports whether Endpoints are to be copied, as far as it depends on themselves.
func mirrored(eps kube.Object) bool {
	if eps.GetLabels()[discoveryv1.LabelSkipMirror] == "true" {
		return false
	}
	_, leader := eps.GetAnnotations()[leaderAnnotation]
	return !leader
}

func (c *controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	svc, ok := control.Get[*corev1.Service](c.client, kube.Service, key.Namespace, key.Name)
	eps, there := control.Get[*corev1.Endpoints](c.client, kube.Endpoints, key.Namespace, key.Name)
	var existing []*discoveryv1.EndpointSlice
	if ok && there && len(svc.Spec.Selector) > 0 {
		// As of most Services, whose Endpoints change with their pods: what was mirrored before there was a selector belongs to them.
		existing = c.kept(c.client.Index(kube.EndpointSlice, control.OwnerIndex, string(eps.UID)), key)
	} else {
		existing = c.kept(c.client.List(kube.EndpointSlice, key.Namespace), key)
	}
	var writes []control.Write
	switch {
	case !ok || !there || len(svc.Spec.Selector) > 0 || !mirrored(eps) || svc.DeletionTimestamp != nil || eps.DeletionTimestamp != nil:
		for _, s := range existing {
			writes = append(writes, control.Write{Old: s, Delete: true})
		}
	case control.NamespaceEnding(c.client, key.Namespace):
		return 0, nil
	default:
		writes = plan(svc, eps, existing)
	}
	if len(writes) == 0 {
		return 0, nil
	}
	err := c.client.Commit(ctx, writes)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, control.IgnoreNotFound(err)
}

// kept returns those of slices that this controller keeps of a Service.
func (c *controller) kept(slices []kube.Object, key control.Key) (out []*discoveryv1.EndpointSlice) {
	for _, o := range slices {
		s := o.(*discoveryv1.EndpointSlice)
		if s.Labels[discoveryv1.LabelServiceName] == key.Name && s.Labels[discoveryv1.LabelManagedBy] == ManagedBy && s.DeletionTimestamp == nil {
			out = append(out, s)
		}
	}
	return out
}

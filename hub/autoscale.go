package hub

import (
	"context"
	"fmt"
	"net/url"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/horizontalpodautoscaler"
	"petrel.dev/petrel/hub/resource"
)

// autoscaler is the user that reads metrics and sets scales for HorizontalPodAutoscalers.
var autoscaler = auth.Controller("horizontal-pod-autoscaler")

// autoscalers returns the controller of HorizontalPodAutoscalers.
func (h *Hub) autoscalers(events *control.Recorder) runner {
	return horizontalpodautoscaler.New(horizontalpodautoscaler.Config{
		Client: h.registry.ClientAs(autoscaler), Events: events.As("horizontal-pod-autoscaler"), Scales: autoscaling{h}, Metrics: autoscaling{h},
		Log: h.part("horizontalpodautoscaler"),
	})
}

// autoscaling is what the controller of HorizontalPodAutoscalers reaches outside its own kind.
type autoscaling struct{ h *Hub }

// target returns the scale subresource that a reference names. As on Kubernetes, the version of the reference need not be one that is
// served: the group and the kind count.
func (a autoscaling) target(namespace string, ref autoscalingv2.CrossVersionObjectReference) (resource.Target, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return resource.Target{}, err
	}
	k := a.kind(gv.WithKind(ref.Kind))
	if k == nil {
		return resource.Target{}, fmt.Errorf("no matches for kind %q in group %q", ref.Kind, gv.Group)
	}
	return resource.Target{Kind: k, Namespace: namespace, Name: ref.Name, Subresource: "scale"}, nil
}

// kind returns the kind in the version that is asked for, otherwise in any that is served, otherwise nil.
func (a autoscaling) kind(gvk schema.GroupVersionKind) *resource.Kind {
	if k, ok := a.h.kinds.Lookup(gvk); ok {
		return k
	}
	for _, k := range a.h.kinds.All() {
		if k.GVK.GroupKind() == gvk.GroupKind() {
			return k
		}
	}
	return nil
}

// Scale implements horizontalpodautoscaler.Scales.
func (a autoscaling) Scale(ctx context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (*autoscalingv1.Scale, error) {
	t, err := a.target(namespace, ref)
	if err != nil {
		return nil, err
	}
	got, err := a.h.registry.Get(auth.WithUser(ctx, autoscaler.User), t, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	scale, ok := got.Object.(*autoscalingv1.Scale)
	if !ok {
		return nil, fmt.Errorf("read scale of %s %q: it is a %T", t.Kind.Plural, ref.Name, got.Object)
	}
	return scale, nil
}

// Rescale implements horizontalpodautoscaler.Scales.
func (a autoscaling) Rescale(ctx context.Context, ref autoscalingv2.CrossVersionObjectReference, scale *autoscalingv1.Scale) error {
	t, err := a.target(scale.Namespace, ref)
	if err != nil {
		return err
	}
	// Admission keeps what it has for a request until its context ends.
	ctx, done := context.WithCancel(auth.WithUser(ctx, autoscaler.User))
	defer done()
	_, err = a.h.registry.Update(ctx, t, scale, &metav1.UpdateOptions{FieldManager: autoscaler.Manager})
	return err
}

// Pods implements horizontalpodautoscaler.Metrics.
func (a autoscaling) Pods(ctx context.Context, pods []*corev1.Pod) []*metrics.PodMetrics {
	return a.h.nodeMetrics.Pods(auth.WithUser(ctx, autoscaler.User), pods)
}

// Get implements horizontalpodautoscaler.Metrics.
func (a autoscaling) Get(ctx context.Context, gv schema.GroupVersion, path string, query url.Values) ([]byte, bool, error) {
	return a.h.aggregated.Get(ctx, autoscaler.User, gv, path, query)
}

// Plural implements horizontalpodautoscaler.Metrics.
func (a autoscaling) Plural(kind schema.GroupKind) (schema.GroupResource, bool) {
	k := a.kind(kind.WithVersion(""))
	if k == nil {
		return schema.GroupResource{}, false
	}
	return k.Resource(), true
}

package hub

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// scales is disruption.Scales: any kind with a scale subresource, custom ones too.
type scales struct {
	kinds   *resource.Kinds
	objects *objects.Cache
}

// Scale implements disruption.Scales.
func (s scales) Scale(ctx context.Context, ref *metav1.OwnerReference, namespace string) (kube.Object, int32, error) {
	k, ok := s.kinds.Lookup(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if !ok {
		return nil, 0, fmt.Errorf("no matches for kind %q in version %q", ref.Kind, ref.APIVersion)
	}
	sub := k.Stored().Subresources["scale"]
	if sub == nil || sub.Get == nil {
		return nil, 0, fmt.Errorf("%s does not implement the scale subresource", k.Resource())
	}
	obj, ok, err := s.objects.Whole(ctx, k.GVK, namespace, ref.Name) // reads do not show the replicas of a custom object
	if err != nil || !ok {
		return nil, 0, err
	}
	shown, err := k.Stored().FromStored(ctx, obj) // it may have been stored in another version, and before its replicas had a default
	if err != nil {
		return nil, 0, fmt.Errorf("read scale of %s %q: %w", k.Plural, ref.Name, err)
	}
	got, err := sub.Get(shown[0])
	if err != nil {
		return nil, 0, fmt.Errorf("read scale of %s %q: %w", k.Plural, ref.Name, err)
	}
	scale, ok := got.(*autoscalingv1.Scale)
	if !ok {
		return nil, 0, fmt.Errorf("read scale of %s %q: it is a %T", k.Plural, ref.Name, got)
	}
	return obj, scale.Spec.Replicas, nil
}

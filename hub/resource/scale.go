package resource

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install" // Scale
	"k8s.io/kubernetes/pkg/apis/autoscaling/validation"

	"petrel.dev/petrel/internal/kube"
)

// Scaled has the parts of a workload that its Scale shows.
type Scaled struct {
	Replicas **int32 // spec.replicas
	Current  int32   // status.Replicas
	Selector *metav1.LabelSelector
}

// Scale declares the autoscaling/v1 Scale of a kind: a view through which only spec.replicas can be set.
func Scale(k *Kind, of func(kube.Object) *Scaled) *Subresource {
	resource := schema.GroupResource{Group: k.GVK.Group, Resource: k.Plural + "/scale"}
	gvk := autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	return &Subresource{
		Name:  "scale",
		GVK:   gvk,
		Verbs: []string{"get", "patch", "update"},
		New:   func() runtime.Object { return &autoscalingv1.Scale{} },
		// The same in every version of every workload.
		Replicas: []string{"spec", "replicas"},
		Get: func(parent kube.Object) (runtime.Object, error) {
			s := of(parent)
			selector, err := metav1.LabelSelectorAsSelector(s.Selector)
			if err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
			out := &autoscalingv1.Scale{
				ObjectMeta: metav1.ObjectMeta{
					Name:              parent.GetName(),
					Namespace:         parent.GetNamespace(),
					UID:               parent.GetUID(),
					ResourceVersion:   parent.GetResourceVersion(),
					CreationTimestamp: parent.GetCreationTimestamp(),
				},
				Status: autoscalingv1.ScaleStatus{Replicas: s.Current, Selector: selector.String()},
			}
			if *s.Replicas != nil {
				out.Spec.Replicas = **s.Replicas
			}
			out.SetGroupVersionKind(gvk)
			return out, nil
		},
		Put: func(parent kube.Object, body runtime.Object) error {
			asked, ok := body.(*autoscalingv1.Scale)
			if !ok {
				return apierrors.NewBadRequest(fmt.Sprintf("expected input object type to be Scale, but %T", body))
			}
			if errs := validation.ValidateScale(Internal[autoscaling.Scale](asked)); len(errs) > 0 {
				return kube.NewInvalid(gvk.GroupKind(), parent.GetName(), errs)
			}
			if asked.UID != "" && asked.UID != parent.GetUID() {
				//lint:ignore ST1005 upstream's text
				return apierrors.NewConflict(resource, parent.GetName(), fmt.Errorf(
					"Precondition failed: UID in precondition: %v, UID in object meta: %v", asked.UID, parent.GetUID()))
			}
			if asked.ResourceVersion != "" {
				parent.SetResourceVersion(asked.ResourceVersion) // makes the update conditional
			}
			replicas := asked.Spec.Replicas
			*of(parent).Replicas = &replicas
			return nil
		},
	}
}

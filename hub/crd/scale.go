package crd

import (
	"fmt"
	"math"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/crd/structural"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// unset is what a patch of a Scale finds as its replicas when the object has none, as upstream marks it.
const unset = math.MinInt32

// scale declares the autoscaling/v1 Scale of a version: a view of the fields that paths names.
func scale(paths *apiextensionsv1.CustomResourceSubresourceScale) *resource.Subresource {
	gvk := autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	return &resource.Subresource{
		Name: "scale", GVK: gvk, Verbs: []string{"get", "patch", "update"},
		Replicas: structural.Path(paths.SpecReplicasPath),
		New:      func() runtime.Object { return &autoscalingv1.Scale{} },
		Get: func(parent kube.Object) (runtime.Object, error) {
			out, found, err := scaleOf(parent, paths)
			if err == nil && !found {
				err = fmt.Errorf("the spec replicas field %q does not exist", paths.SpecReplicasPath)
			}
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			return out, nil
		},
		Base: func(parent kube.Object) (runtime.Object, error) {
			out, found, err := scaleOf(parent, paths)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			if !found {
				out.Spec.Replicas = unset
			}
			return out, nil
		},
		Put: func(parent kube.Object, body runtime.Object) error {
			asked, ok := body.(*autoscalingv1.Scale)
			if !ok {
				return apierrors.NewBadRequest(fmt.Sprintf("wrong object passed to Scale update: %v", body))
			}
			if asked.Spec.Replicas == unset {
				return apierrors.NewBadRequest(fmt.Sprintf("the spec replicas field %q cannot be empty", paths.SpecReplicasPath))
			}
			if asked.ResourceVersion != "" {
				parent.SetResourceVersion(asked.ResourceVersion) // makes the update conditional
			}
			return unstructured.SetNestedField(parent.(*unstructured.Unstructured).Object, int64(asked.Spec.Replicas), structural.Path(paths.SpecReplicasPath)...)
		},
	}
}

// scaleOf returns the Scale of an object; found is false when the object does not say how many replicas it wants.
func scaleOf(parent kube.Object, paths *apiextensionsv1.CustomResourceSubresourceScale) (out *autoscalingv1.Scale, found bool, err error) {
	obj := parent.(*unstructured.Unstructured).Object
	wanted, found, err := unstructured.NestedInt64(obj, structural.Path(paths.SpecReplicasPath)...)
	if err != nil {
		return nil, false, err
	}
	have, _, err := unstructured.NestedInt64(obj, structural.Path(paths.StatusReplicasPath)...)
	if err != nil {
		return nil, false, err
	}
	selector := ""
	if paths.LabelSelectorPath != nil && *paths.LabelSelectorPath != "" {
		if selector, _, err = unstructured.NestedString(obj, structural.Path(*paths.LabelSelectorPath)...); err != nil {
			return nil, false, err
		}
	}
	out = &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: parent.GetName(), Namespace: parent.GetNamespace(), UID: parent.GetUID(),
			ResourceVersion: parent.GetResourceVersion(), CreationTimestamp: parent.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: int32(wanted)},
		Status: autoscalingv1.ScaleStatus{Replicas: int32(have), Selector: selector},
	}
	out.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	return out, found, nil
}

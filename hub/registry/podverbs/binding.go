package podverbs

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// binding sets a pod's node, once.
type binding struct{}

// Handle implements resource.Handler. The scheduler, which commits many bindings at once, sends the pod with spec.nodeName.
func (binding) Handle(ctx context.Context, q *resource.Request, body runtime.Object, objects resource.Objects) (resource.Answer, error) {
	b, err := bindingOf(q, body)
	if err != nil {
		return resource.Answer{}, err
	}
	own := *q
	own.Preconditions = preconditions(q.Preconditions, b.UID, b.ResourceVersion)
	return resource.Answer{}, objects.Update(ctx, &own, b, func(obj kube.Object) error {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return apierrors.NewBadRequest(fmt.Sprintf("%s cannot be bound to a node", q.Kind.Plural))
		}
		if err := assign(pod, b, objects.Now()); err != nil {
			return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, q.Name, err)
		}
		return nil
	})
}

// bindings is binding for a Binding that was created for itself: it names the pod.
type bindings struct{ pods *resource.Kind }

// Handle implements resource.Handler.
func (h bindings) Handle(ctx context.Context, q *resource.Request, body runtime.Object, objects resource.Objects) (resource.Answer, error) {
	b, ok := body.(*corev1.Binding)
	if !ok {
		return resource.Answer{}, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", body))
	}
	if b.Name == "" {
		return resource.Answer{}, apierrors.NewBadRequest("name is required")
	}
	own := *q
	own.Target = resource.Target{Kind: h.pods, Namespace: q.Namespace, Name: b.Name, Subresource: "binding"}
	return binding{}.Handle(ctx, &own, b, objects)
}

// bindingOf reads the body of a request.
func bindingOf(q *resource.Request, body runtime.Object) (*corev1.Binding, error) {
	b := &corev1.Binding{}
	switch body := body.(type) {
	case *corev1.Binding:
		*b = *body // its name may be filled in
	case *corev1.Pod:
		b.Name, b.Namespace, b.UID = body.Name, body.Namespace, body.UID
		b.Target = corev1.ObjectReference{Kind: kube.Node.Kind, Name: body.Spec.NodeName}
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", body))
	}
	if b.Name == "" {
		b.Name = q.Name
	}
	if b.Name != q.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := validateBinding(b); len(errs) > 0 {
		return nil, kube.First(errs).ToAggregate()
	}
	return b, nil
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != kube.Node.Kind {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{kube.Node.Kind, "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

// preconditions adds those of a body to those that the request has already.
func preconditions(had *metav1.Preconditions, uid types.UID, version string) *metav1.Preconditions {
	p := metav1.Preconditions{}
	if had != nil {
		p = *had
	}
	if uid != "" {
		p.UID = &uid
	}
	if version != "" {
		p.ResourceVersion = &version
	}
	return &p
}

// assign sets the pod's node and what goes with it.
func assign(pod *corev1.Pod, b *corev1.Binding, now time.Time) error {
	switch {
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) != 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = b.Target.Name
	pod.Status.NominatedNodeName = ""
	if len(b.Annotations) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		maps.Copy(pod.Annotations, b.Annotations)
	}
	if len(b.Labels) > 0 {
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		maps.Copy(pod.Labels, b.Labels)
	}
	pod.Status.Conditions = kube.SetCondition(pod.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
	})
	return nil
}

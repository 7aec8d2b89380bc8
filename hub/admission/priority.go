package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// priorities gives pods the number that their priority class stands for.
type priorities struct{ objects Objects }

// assign completes a new pod; an updated one keeps what it has.
func (p *priorities) assign(_ context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error {
	if old, ok := a.Old.(*corev1.Pod); ok {
		if pod.Spec.Priority == nil {
			pod.Spec.Priority = old.Spec.Priority
		}
		if pod.Spec.PreemptionPolicy == nil {
			pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
		}
		return nil
	}
	class, err := p.class(pod.Spec.PriorityClassName)
	if err != nil {
		return refuse.Forbidden(a, err)
	}
	if v := pod.Spec.Priority; v != nil && *v != class.Value {
		return refuse.Forbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; "+
			"priority admission controller computed %d from the given PriorityClass name", *v, class.Value))
	}
	policy := corev1.PreemptLowerPriority
	if class.PreemptionPolicy != nil {
		policy = *class.PreemptionPolicy
	}
	if v := pod.Spec.PreemptionPolicy; v != nil && *v != policy {
		return refuse.Forbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; "+
			"priority admission controller computed %s from the given PriorityClass name", *v, policy))
	}
	pod.Spec.PriorityClassName = class.Name
	pod.Spec.Priority = &class.Value
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// class returns a copy of the class of that name, or of the default one for no name; without a default it has no name.
func (p *priorities) class(name string) (schedulingv1.PriorityClass, error) {
	if name == "" {
		if c := p.byDefault(); c != nil {
			return *c, nil
		}
		return schedulingv1.PriorityClass{}, nil
	}
	if c, ok := control.Get[*schedulingv1.PriorityClass](p.objects, kube.PriorityClass, "", name); ok {
		return *c, nil
	}
	value, ok := kube.SystemPriorities[name] // before the hub has made them, or has made them again
	if !ok {
		return schedulingv1.PriorityClass{}, fmt.Errorf("no PriorityClass with name %v was found", name)
	}
	c := schedulingv1.PriorityClass{Value: value}
	c.Name = name
	return c, nil
}

// byDefault returns the class of pods that name none; nil: there is none. Of several, which a race can leave, it is the lowest.
func (p *priorities) byDefault() *schedulingv1.PriorityClass {
	var lowest *schedulingv1.PriorityClass
	for _, c := range control.List[*schedulingv1.PriorityClass](p.objects, kube.PriorityClass, "") {
		if c.GlobalDefault && (lowest == nil || c.Value < lowest.Value) {
			lowest = c
		}
	}
	return lowest
}

// oneDefault refuses a second default class.
func (p *priorities) oneDefault(_ context.Context, a *registry.AdmissionRequest) error {
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault || a.Operation != registry.OpCreate && a.Operation != registry.OpUpdate {
		return nil
	}
	if now := p.byDefault(); now != nil && (a.Operation == registry.OpCreate || now.Name != class.Name) {
		return refuse.Forbidden(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", now.Name))
	}
	return nil
}

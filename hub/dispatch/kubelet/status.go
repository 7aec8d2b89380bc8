package kubelet

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// AsStored returns obj with some fields of its status as old has them; nil when that cannot be made.
func AsStored(obj, old kube.Object, fields []string) kube.Object {
	now, before := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	get := func(o kube.Object, into map[string]json.RawMessage) bool {
		var status any
		switch o := o.(type) {
		case *corev1.Pod:
			status = o.Status
		case *corev1.Node:
			status = o.Status
		default:
			return false
		}
		b, err := json.Marshal(status)
		return err == nil && json.Unmarshal(b, &into) == nil
	}
	if !get(obj, now) || !get(old, before) {
		return nil
	}
	for _, f := range fields {
		if v, ok := before[f]; ok {
			now[f] = v
		} else {
			delete(now, f)
		}
	}
	b, err := json.Marshal(now)
	if err != nil {
		return nil
	}
	out := obj.DeepCopyObject().(kube.Object)
	switch o := out.(type) {
	case *corev1.Pod:
		o.Status = corev1.PodStatus{}
		err = json.Unmarshal(b, &o.Status)
	case *corev1.Node:
		o.Status = corev1.NodeStatus{}
		err = json.Unmarshal(b, &o.Status)
	}
	if err != nil {
		return nil
	}
	return out
}

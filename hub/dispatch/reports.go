package dispatch

import (
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// plan is what a report changes; nothing, when it is of no consequence or not the node's to say.
type plan struct {
	writes []control.Write
	alone  bool // must not share a transaction
}

func (i *intake) plan(r report) plan {
	switch r.put.Kind {
	case wire.KindPodStatus:
		return i.planPod(r)
	case wire.KindNodeStatus:
		return i.planNode(r)
	case wire.KindEvent:
		return i.planEvent(r)
	}
	return plan{}
}

// planPod: only the node that a pod is bound to may speak of it, and only of the very pod (by UID).
func (i *intake) planPod(r report) plan {
	var rep wire.PodReport
	if err := json.Unmarshal(r.put.Data, &rep); err != nil {
		i.log.Warn("report cannot be read", "node", r.node, "kind", r.put.Kind, "error", err)
		return plan{}
	}
	pod, ok := control.Get[*corev1.Pod](i.client, kube.Pod, rep.Namespace, rep.Name)
	if !ok || string(pod.UID) != r.put.UID || pod.Spec.NodeName != r.node {
		return plan{}
	}
	terminal := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	if rep.Gone {
		switch {
		case pod.DeletionTimestamp != nil:
			return plan{writes: []control.Write{{Object: pod, Old: pod, Delete: true}}, alone: len(pod.Finalizers) > 0}
		case terminal:
			return plan{}
		}
		lost := pod.DeepCopy()
		lost.Status.Phase, lost.Status.Reason = corev1.PodFailed, "NodeLostPod"
		lost.Status.Message = "The pod and all that belonged to it is gone from its node."
		return plan{writes: []control.Write{{Object: lost, Old: pod, Subresource: "status"}}}
	}
	var status corev1.PodStatus
	if err := json.Unmarshal(rep.Status, &status); err != nil {
		i.log.Warn("pod status cannot be read", "node", r.node, "pod", rep.Namespace+"/"+rep.Name, "error", err)
		return plan{}
	}
	if terminal && status.Phase != pod.Status.Phase {
		return plan{} // what has ended does not begin again
	}
	// Also when the cache says so already: the cache may be older than this node's last report, which said otherwise. The
	// commit compares with what is stored, and leaves out what changes nothing.
	next := pod.DeepCopy()
	next.Status = mergePodStatus(pod.Status, status)
	return plan{writes: []control.Write{{Object: next, Old: pod, Subresource: "status"}}}
}

// mergePodStatus keeps what the hub says and the node does not: conditions of other writers, and fields that the node
// leaves empty because they are not its own.
func mergePodStatus(stored, said corev1.PodStatus) corev1.PodStatus {
	has := map[corev1.PodConditionType]bool{}
	for _, c := range said.Conditions {
		has[c.Type] = true
	}
	var kept []corev1.PodCondition
	for _, c := range stored.Conditions {
		if !has[c.Type] {
			kept = append(kept, c)
		}
	}
	said.Conditions = append(kept, said.Conditions...)
	if said.QOSClass == "" {
		said.QOSClass = stored.QOSClass
	}
	if said.StartTime == nil {
		said.StartTime = stored.StartTime
	}
	said.NominatedNodeName = stored.NominatedNodeName
	return said
}

func (i *intake) planNode(r report) plan {
	var rep wire.NodeReport
	var status corev1.NodeStatus
	if err := json.Unmarshal(r.put.Data, &rep); err != nil {
		i.log.Warn("report cannot be read", "node", r.node, "kind", r.put.Kind, "error", err)
		return plan{}
	}
	if err := json.Unmarshal(rep.Status, &status); len(rep.Status) > 0 && err != nil {
		i.log.Warn("node status cannot be read", "node", r.node, "error", err)
		return plan{}
	}
	node, ok := control.Get[*corev1.Node](i.client, kube.Node, "", r.node)
	if !ok {
		return plan{}
	}
	next := node.DeepCopy()
	if labels := allowedLabels(rep.Labels); len(labels) > 0 {
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		maps.Copy(next.Labels, labels)
	}
	if !equality.Semantic.DeepEqual(next.Labels, node.Labels) {
		// The status follows in a try of its own, on what this write makes.
		return plan{writes: []control.Write{{Object: next, Old: node}, i.nodeStatus(next, node, status)}, alone: true}
	}
	return plan{writes: []control.Write{i.nodeStatus(node.DeepCopy(), node, status)}}
}

// nodeStatus merges what the node says into the stored status. Conditions of other writers stay; the time of a transition
// is the hub's, since a node's clock may be anything.
func (i *intake) nodeStatus(next, old *corev1.Node, said corev1.NodeStatus) control.Write {
	now := metav1.Now()
	conds := said.Conditions
	has := map[corev1.NodeConditionType]bool{}
	for k := range conds {
		c := &conds[k]
		has[c.Type] = true
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		for _, o := range old.Status.Conditions {
			if o.Type == c.Type && o.Status == c.Status {
				c.LastTransitionTime = o.LastTransitionTime
			}
		}
	}
	var kept []corev1.NodeCondition
	for _, o := range old.Status.Conditions {
		if !has[o.Type] {
			kept = append(kept, o)
		}
	}
	said.Conditions = append(kept, conds...)
	if said.Phase == "" {
		said.Phase = old.Status.Phase
	}
	next.Status = said
	return control.Write{Object: next, Old: old, Subresource: "status"}
}

// planEvent: a node may tell events of itself and of pods that are bound to it.
func (i *intake) planEvent(r report) plan {
	e := &corev1.Event{}
	if err := json.Unmarshal(r.put.Data, e); err != nil {
		i.log.Warn("report cannot be read", "node", r.node, "kind", r.put.Kind, "error", err)
		return plan{}
	}
	about := e.InvolvedObject
	switch about.Kind {
	case "Node":
		if about.Name != r.node {
			return plan{}
		}
		if e.Namespace == "" {
			e.Namespace = metav1.NamespaceDefault
		}
	case "Pod":
		pod, ok := control.Get[*corev1.Pod](i.client, kube.Pod, about.Namespace, about.Name)
		if !ok || pod.Spec.NodeName != r.node || about.UID != pod.UID || e.Namespace != about.Namespace {
			return plan{}
		}
	default:
		return plan{}
	}
	e.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}
	e.ResourceVersion, e.UID, e.OwnerReferences, e.Finalizers = "", "", nil, nil
	e.Source.Host = r.node
	old, ok := control.Get[*corev1.Event](i.client, kube.Event, e.Namespace, e.Name)
	if !ok {
		return plan{writes: []control.Write{{Object: e}}}
	}
	e.ObjectMeta = *old.ObjectMeta.DeepCopy()
	return plan{writes: []control.Write{{Object: e, Old: old}}}
}

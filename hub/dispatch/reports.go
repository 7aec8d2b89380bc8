package dispatch

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	alone  bool     // must not share a transaction
	left   []string // what of the report is not taken, and why
}

// report is one thing that a node says.
type report struct {
	node string
	put  *wire.Put
}

// maxReports bounds a report in bytes, by its kind: a pod of 110 containers with their last words fits.
var maxReports = map[wire.Kind]int{
	wire.KindPodStatus: 256 << 10, wire.KindNodeStatus: 128 << 10, wire.KindEvent: 16 << 10,
}

func (i *intake) plan(r report) plan {
	if most, ok := maxReports[r.put.Kind]; ok && len(r.put.Data) > most {
		return unread("it has %d bytes, a report of its kind may have %d", len(r.put.Data), most)
	}
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

// unread is the plan for a report of which nothing is taken.
func unread(format string, args ...any) plan {
	return plan{left: []string{"all of it: " + fmt.Sprintf(format, args...)}}
}

// decode reads a status as far as it can be read: one field of a wrong type does not cost the others.
func decode[T any](data []byte, status *T) (left []string, err error) {
	if json.Unmarshal(data, status) == nil {
		return nil, nil
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	*status = *new(T)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err == nil {
			err = json.Unmarshal(one, new(T))
		}
		if err == nil {
			err = json.Unmarshal(one, status)
		}
		if err != nil && len(left) < maxLeft {
			left = append(left, fmt.Sprintf("%.50q, which cannot be read: %.200s", name, err))
		}
	}
	return left, nil
}

// planPod: only the node that a pod is bound to may speak of it, and only of the very pod (by UID).
func (i *intake) planPod(r report) plan {
	var rep wire.PodReport
	if err := json.Unmarshal(r.put.Data, &rep); err != nil {
		return unread("it cannot be read: %v", err)
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
	left, err := decode(rep.Status, &status)
	if err != nil {
		return unread("it cannot be read: %v", err)
	}
	if terminal && status.Phase != pod.Status.Phase {
		return plan{} // what has ended does not begin again
	}
	// Also when the cache says so already: the cache may be older than this node's last report, which said otherwise. The
	// commit compares with what is stored, and leaves out what changes nothing.
	next := pod.DeepCopy()
	next.Status = mergePodStatus(pod.Status, status)
	left = append(left, i.checkPodAddresses(r.node, next)...)
	return plan{writes: []control.Write{{Object: next, Old: pod, Subresource: "status"}}, left: left}
}

// mergePodStatus keeps what the hub says and the node does not: conditions of other writers, and fields that the node
// leaves empty because they are not its own.
func mergePodStatus(stored, said corev1.PodStatus) corev1.PodStatus {
	said.Conditions = append(kube.OtherConditions(stored.Conditions, said.Conditions), said.Conditions...)
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
		return unread("it cannot be read: %v", err)
	}
	var left []string
	if len(rep.Status) > 0 {
		var err error
		if left, err = decode(rep.Status, &status); err != nil {
			return unread("it cannot be read: %v", err)
		}
	}
	node, ok := control.Get[*corev1.Node](i.client, kube.Node, "", r.node)
	if !ok {
		return plan{}
	}
	i.setPanics(r.node, rep.Panics)
	left = append(left, i.checkNodeStatus(&status)...)
	next := node.DeepCopy()
	left = append(left, mergeLabels(next, rep.Labels)...)
	if !equality.Semantic.DeepEqual(next.ObjectMeta, node.ObjectMeta) {
		// The status follows in a try of its own, on what this write makes.
		return plan{writes: []control.Write{{Object: next, Old: node}, i.nodeStatus(next.DeepCopy(), node, status)}, alone: true, left: left}
	}
	return plan{writes: []control.Write{i.nodeStatus(node.DeepCopy(), node, status)}, left: left}
}

// nodeStatus merges what the node says into the stored status. Conditions of other writers stay; those of
// Petrel's own types that the node says no more are over. The time of a transition is the hub's, since a node's clock may
// be anything.
func (i *intake) nodeStatus(next, old *corev1.Node, said corev1.NodeStatus) control.Write {
	now := metav1.Now()
	conds := said.Conditions
	for k := range conds {
		conds[k].LastHeartbeatTime, conds[k].LastTransitionTime = now, now
		kube.KeepTransition(old.Status.Conditions, &conds[k])
	}
	kept := slices.DeleteFunc(kube.OtherConditions(old.Status.Conditions, conds), func(c corev1.NodeCondition) bool {
		return strings.HasPrefix(string(c.Type), kube.NodeConditionPrefix) && c.Type != kube.DarkCondition
	})
	said.Conditions = append(kept, conds...)
	if said.Phase == "" {
		said.Phase = old.Status.Phase
	}
	next.Status = said
	return control.Write{Object: next, Old: old, Subresource: "status"}
}

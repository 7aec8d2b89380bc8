package dispatch

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/kubelet"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// maxReports bounds a report in bytes, by its kind: a pod of 110 containers with their termination messages fits.
var maxReports = map[wire.Kind]int{
	wire.KindPodStatus: 256 << 10, wire.KindNodeStatus: 128 << 10, wire.KindEvent: 16 << 10,
	wire.KindVolume: 16 << 10,
}

func (i *intake) plan(r report) changes {
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
	case wire.KindVolume:
		return i.planVolume(r)
	}
	return changes{}
}

// planPod plans a pod's status. Only the node that a pod is bound to may report it, and only of the very pod (by UID).
func (i *intake) planPod(r report) changes {
	var rep wire.PodReport
	if err := json.Unmarshal(r.put.Data, &rep); err != nil {
		return unread("it cannot be read: %v", err)
	}
	pod, ok := control.Get[*corev1.Pod](i.client, kube.Pod, rep.Namespace, rep.Name)
	if !ok || string(pod.UID) != r.put.UID || pod.Spec.NodeName != r.node {
		return changes{}
	}
	terminal := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	if rep.Gone {
		switch {
		case pod.DeletionTimestamp != nil:
			return i.planGone(r.node, pod, rep.Status)
		case terminal:
			return changes{}
		}
		lost := pod.DeepCopy()
		lost.Status.Phase, lost.Status.Reason = corev1.PodFailed, "NodeLostPod"
		lost.Status.Message = "The pod and all that belonged to it is gone from its node."
		return changes{writes: []control.Write{{Object: lost, Old: pod, Subresource: "status"}}}
	}
	var status corev1.PodStatus
	left, err := decode(rep.Status, &status)
	if err != nil {
		return unread("it cannot be read: %v", err)
	}
	if terminal && status.Phase != pod.Status.Phase {
		return changes{} // a pod that has ended stays so
	}
	// Also when the cache has it so already: the cache may be older than this node's last report, which had it otherwise. The
	// commit compares with what is stored, and leaves out what changes nothing.
	next := pod.DeepCopy()
	status.Conditions = kube.WithoutGates(pod, status.Conditions)
	next.Status = mergePodStatus(pod.Status, status)
	left = append(left, i.checkPodAddresses(r.node, next)...)
	return changes{writes: []control.Write{{Object: next, Old: pod, Subresource: "status"}}, left: left}
}

// planGone plans the end of a deleted pod of which nothing is left on its node. With a finalizer it stays in the API, and who set
// that wants to see how it ended: it gets its last status first, and a phase that is final.
func (i *intake) planGone(node string, pod *corev1.Pod, reported json.RawMessage) changes {
	remove := control.Write{Object: pod, Old: pod, Delete: true}
	switch {
	case len(pod.Finalizers) == 0:
		return changes{writes: []control.Write{remove}}
	case control.PodFinished(pod):
		return changes{writes: []control.Write{remove}, alone: true}
	}
	next := pod.DeepCopy()
	var status corev1.PodStatus
	left, err := decode(reported, &status)
	if err == nil {
		status.Conditions = kube.WithoutGates(pod, status.Conditions)
		next.Status = mergePodStatus(pod.Status, status)
	}
	if !control.PodFinished(next) {
		next.Status.Phase = corev1.PodFailed
	}
	left = append(left, i.checkPodAddresses(node, next)...)
	return changes{writes: []control.Write{{Object: next, Old: pod, Subresource: "status"}, remove}, alone: true, left: left}
}

// mergePodStatus keeps what is stored and not the node's to report: conditions of other writers, and fields that the node
// leaves empty because they are not its own.
func mergePodStatus(stored, reported corev1.PodStatus) corev1.PodStatus {
	kept := slices.DeleteFunc(kube.OtherConditions(stored.Conditions, reported.Conditions), func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress // over, if the node reports them no more
	})
	reported.Conditions = append(kept, reported.Conditions...)
	if reported.QOSClass == "" {
		reported.QOSClass = stored.QOSClass
	}
	if reported.StartTime == nil {
		reported.StartTime = stored.StartTime
	}
	reported.NominatedNodeName = stored.NominatedNodeName
	return reported
}

// planNode plans a node's status and labels.
func (i *intake) planNode(r report) changes {
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
		return changes{}
	}
	i.setPanics(r.node, rep.Panics)
	left = append(left, i.checkNodeStatus(&status)...)
	next := node.DeepCopy()
	left = append(left, kubelet.MergeLabels(next, rep.Labels, maxLeft)...)
	if !equality.Semantic.DeepEqual(next.ObjectMeta, node.ObjectMeta) {
		// The status follows in a try of its own, on what this write makes.
		return changes{writes: []control.Write{{Object: next, Old: node}, i.nodeStatus(next.DeepCopy(), node, status)}, alone: true, left: left}
	}
	return changes{writes: []control.Write{i.nodeStatus(node.DeepCopy(), node, status)}, left: left}
}

// nodeStatus merges what the node reports into the stored status. Conditions of other writers stay; those of Petrel's own types
// that the node does not report any more are over. The time of a transition is the hub's, since a node's clock may
// be anything.
func (i *intake) nodeStatus(next, old *corev1.Node, reported corev1.NodeStatus) control.Write {
	now := metav1.Now()
	conds := reported.Conditions
	for k := range conds {
		conds[k].LastHeartbeatTime, conds[k].LastTransitionTime = now, now
		kube.KeepTransition(old.Status.Conditions, &conds[k])
	}
	kept := slices.DeleteFunc(kube.OtherConditions(old.Status.Conditions, conds), func(c corev1.NodeCondition) bool {
		return strings.HasPrefix(string(c.Type), kube.NodeConditionPrefix) && c.Type != kube.DarkCondition
	})
	reported.Conditions = append(kept, conds...)
	if reported.Phase == "" {
		reported.Phase = old.Status.Phase
	}
	next.Status = reported
	return control.Write{Object: next, Old: old, Subresource: "status"}
}

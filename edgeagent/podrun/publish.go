package podrun

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
	"petrel.dev/petrel/internal/wire"
)

// show publishes what others may see of the pod, from the worker's state as it is now.
func (w *worker) show() {
	last := w.mem.Last
	before := w.shown.Swap(&snapshot{pod: w.pod, last: &last, sandbox: w.mem.Sandbox, admitted: w.mem.Admitted, rejected: w.mem.Rejected.Reason != "",
		released: w.mem.Released, removed: w.mem.Removed, wanted: w.wanted,
		allocated: w.allocated, deferred: w.mem.Resize.Pending.Reason != "", volumes: w.mounted,
		retries: len(w.mem.Starts) > 0 || !w.mem.Blocked.Retry.IsZero(), old: make(chan struct{})})
	if before != nil {
		close(before.old)
	}
}

// publish reports the status when it has changed, and keeps it for the next step and the next life.
func (w *worker) publish(d lifecycle.Target, dec lifecycle.Decision) {
	status, err := json.Marshal(&dec.Status)
	if err != nil {
		w.m.cfg.Log.Error("pod status does not encode", "pod", w.uid, "error", err)
		return
	}
	before := w.mem.Last
	w.mem.Last, w.mem.State = dec.Status, dec.State
	w.show()
	w.tellBackOff(d.Pod, &before, &dec.Status)
	w.resizeDone(d.Pod, &before, &dec.Status)
	if before.Phase != dec.Status.Phase {
		w.m.limitsChanged()
		w.m.roomChanged()
		w.m.cfg.Log.Info("pod phase", "pod", d.Pod.Name, "namespace", d.Pod.Namespace, "phase", dec.Status.Phase, "state", dec.State.String())
	}
	report, err := json.Marshal(wire.PodReport{Namespace: d.Pod.Namespace, Name: d.Pod.Name, Gone: dec.State == lifecycle.Removed, Status: status})
	if err != nil || bytes.Equal(report, w.published) {
		return
	}
	if dec.State != lifecycle.Removed {
		if old, err := safefile.Read(filepath.Join(w.dir, statusFile), maxOwnFile); err != nil || !bytes.Equal(old, status) {
			w.write(statusFile, status)
		}
	}
	if d.Gone { // the hub has dropped the pod
		w.published = report
		return
	}
	h := fnv.New64a()
	h.Write(report)
	if err := w.m.cfg.Report(wire.Object{ID: w.reportID(), Version: h.Sum64(), Namespace: d.Pod.Namespace, Name: d.Pod.Name, Data: report}); err != nil {
		w.m.cfg.Log.Warn("pod status not reported", "pod", d.Pod.Name, "error", err)
		return
	}
	w.published = report
}

// tellBackOff records an event for each container that now has to wait before it is started again.
func (w *worker) tellBackOff(pod *corev1.Pod, before, now *corev1.PodStatus) {
	waits := func(st *corev1.ContainerStatus) bool {
		return st != nil && st.State.Waiting != nil && st.State.Waiting.Reason == lifecycle.ReasonCrash
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if waits(kube.ContainerStatusNamed(now, c.Name)) && !waits(kube.ContainerStatusNamed(before, c.Name)) {
			w.m.events.Record(pod, &c, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)",
				c.Name, pod.Name, pod.Namespace, pod.UID)
		}
	}
}

func (w *worker) reportID() wire.ID { return wire.ID{Kind: wire.KindPodStatus, UID: w.uid} }

// forget drops the report of a pod that is gone, once the hub has dropped the pod.
func (w *worker) forget() {
	if err := w.m.cfg.Forget(w.reportID()); err != nil {
		w.m.cfg.Log.Warn("pod report not dropped", "pod", w.uid, "error", err)
	}
}

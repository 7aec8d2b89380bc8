package podrun

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
	"petrel.dev/petrel/internal/wire"
)

// show publishes what others may see of the pod, from the worker's state as it is now.
func (w *worker) show() {
	last := w.mem.last
	w.shown.Store(&snapshot{pod: w.pod, last: &last, sandbox: w.mem.sandbox, admitted: w.mem.admitted, rejected: w.mem.rejected.reason != "",
		released: w.mem.released, removed: w.mem.removed, wanted: w.wanted, volumes: w.mounted,
		retries: len(w.mem.starts) > 0 || !w.mem.blocked.retry.IsZero()})
}

// publish reports the status when it has changed, and keeps it for the next step and the next life.
func (w *worker) publish(d target, dec decision) {
	status, err := json.Marshal(&dec.status)
	if err != nil {
		w.m.cfg.Log.Error("pod status does not encode", "pod", w.uid, "error", err)
		return
	}
	before := w.mem.last
	w.mem.last, w.mem.state = dec.status, dec.state
	w.show()
	w.tellBackOff(d.pod, &before, &dec.status)
	if before.Phase != dec.status.Phase {
		w.m.limitsChanged()
		w.m.cfg.Log.Info("pod phase", "pod", d.pod.Name, "namespace", d.pod.Namespace, "phase", dec.status.Phase, "state", dec.state.String())
	}
	report, err := json.Marshal(wire.PodReport{Namespace: d.pod.Namespace, Name: d.pod.Name, Gone: dec.state == Removed, Status: status})
	if err != nil || bytes.Equal(report, w.published) {
		return
	}
	if dec.state != Removed {
		if old, err := safefile.Read(filepath.Join(w.dir, statusFile), maxOwnFile); err != nil || !bytes.Equal(old, status) {
			w.write(statusFile, status)
		}
	}
	if d.gone { // nobody waits for it
		w.published = report
		return
	}
	h := fnv.New64a()
	h.Write(report)
	if err := w.m.cfg.Report(wire.Object{ID: w.reportID(), Version: h.Sum64(), Namespace: d.pod.Namespace, Name: d.pod.Name, Data: report}); err != nil {
		w.m.cfg.Log.Warn("pod status not reported", "pod", d.pod.Name, "error", err)
		return
	}
	w.published = report
}

// tellBackOff records an event for each container that now has to wait before it is started again.
func (w *worker) tellBackOff(pod *corev1.Pod, before, now *corev1.PodStatus) {
	waits := func(st *corev1.ContainerStatus) bool {
		return st != nil && st.State.Waiting != nil && st.State.Waiting.Reason == reasonCrash
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if waits(kube.ContainerStatusNamed(now, c.Name)) && !waits(kube.ContainerStatusNamed(before, c.Name)) {
			w.m.events.pod(pod, &c, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)",
				c.Name, pod.Name, pod.Namespace, pod.UID)
		}
	}
}

func (w *worker) reportID() wire.ID { return wire.ID{Kind: wire.KindPodStatus, UID: w.uid} }

func (w *worker) forget() {
	if err := w.m.cfg.Forget(w.reportID()); err != nil {
		w.m.cfg.Log.Warn("pod report not dropped", "pod", w.uid, "error", err)
	}
}

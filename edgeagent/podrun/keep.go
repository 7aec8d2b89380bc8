package podrun

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/resize"
	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/safefile"
)

const (
	podFile    = "pod.json"
	statusFile = "status.json"
	maxOwnFile = 16 << 20 // bytes of either that are read
)

// load reads what an earlier life of the agent has left of the pod. It is called before the worker runs.
func (w *worker) load() {
	defer w.show()
	if b, err := safefile.Read(filepath.Join(w.dir, statusFile), maxOwnFile); err == nil {
		var st corev1.PodStatus
		if err := json.Unmarshal(b, &st); err != nil {
			w.m.cfg.Log.Warn("saved pod status is damaged, going on without", "pod", w.uid, "error", err)
		} else {
			w.mem.Last = st
		}
	}
	b, err := safefile.Read(filepath.Join(w.dir, podFile), maxOwnFile)
	if err != nil {
		return
	}
	var p corev1.Pod
	if json.Unmarshal(b, &p) != nil || string(p.UID) != w.uid {
		return
	}
	w.allocation = resize.Of(&p)
	if w.pod == nil {
		w.pod = &p
	}
}

// save keeps the pod, as it is allocated, on disk: so that it can still be stopped properly once the set has dropped it, and so that the
// next life of the agent knows what it has.
func (w *worker) save(pod *corev1.Pod) {
	if w.mem.Removed {
		return
	}
	p := *pod
	p.ManagedFields, p.Status = nil, corev1.PodStatus{}
	b, err := json.Marshal(&p)
	if err != nil || bytes.Equal(b, w.saved) {
		return
	}
	if w.saved == nil {
		if old, err := safefile.Read(filepath.Join(w.dir, podFile), maxOwnFile); err == nil && bytes.Equal(old, b) {
			w.saved = b
			return
		}
	}
	w.saved = b
	w.write(podFile, b)
}

// write replaces a file of the pod's directory in one step. It need not survive a power cut: everything in it can be
// found out again.
func (w *worker) write(name string, b []byte) {
	path := filepath.Join(w.dir, name)
	err := os.MkdirAll(w.dir, 0o755)
	if err == nil {
		err = durable.WriteVolatile(path, b, 0o600)
	}
	if err != nil {
		w.m.cfg.Log.Warn("pod file not written", "file", path, "error", err)
	}
}

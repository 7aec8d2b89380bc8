package podrun

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
)

// The files that the agent makes for every pod lie in the runtime's Files directory. Containers may write to them: so they
// are bounded there, the agent reads none of them but the termination message, and of that only the last bytes.
// Names in it are the agent's own; a container sees single files and can neither replace nor remove one.

// machineFiles reads what pods have of the machine's own hosts and resolv.conf. A machine without them has nothing to give.
func machineFiles() (hosts, resolv string, err error) {
	if b, err := os.ReadFile("/etc/hosts"); err == nil {
		hosts = string(b)
	}
	path := "/etc/resolv.conf"
	// systemd-resolved's stub listens on the node's loopback, which a pod cannot reach.
	if _, err := os.Stat("/run/systemd/resolve/resolv.conf"); err == nil {
		path = "/run/systemd/resolve/resolv.conf"
	}
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return "", "", fmt.Errorf("node's resolver: %w", err)
	}
	return hosts, string(b), nil
}

// logPath is where the log of a container's attempt is.
func (h *handle) logPath(container string, attempt int) string {
	return filepath.Join(h.dir, container, strconv.Itoa(attempt)+".log")
}

// writeFiles writes the files that the pod's containers share: in place, because running containers have them mounted,
// and without a moment in which a reader finds them empty.
func (h *handle) writeFiles(texts map[string]string) error {
	dir := h.m.cfg.Runtime.Files(h.uid)
	for name, text := range texts {
		err := overwrite(filepath.Join(dir, name), text)
		if errors.Is(err, syscall.ENOSPC) { // its containers have filled what the pod has; the others do not care
			h.m.cfg.Log.Warn("pod file not renewed: the pod's containers have filled its own files", "pod", h.uid, "file", name)
			continue
		}
		if err != nil {
			return fmt.Errorf("pod files: %w", err)
		}
	}
	return nil
}

// overwrite replaces the content of a file in place: the new text first, then the new length.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil { // whatever the umask
		return err
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// fileMounts are the files that every container finds: hosts, hostname, resolv.conf, and where it leaves its termination message.
// A container whose root is read-only cannot write to the first three either; its message it can, as upstream's.
func (h *handle) fileMounts(pod *corev1.Pod, c *corev1.Container, attempt int, readOnly bool, have []cruntime.Mount) ([]cruntime.Mount, error) {
	var out []cruntime.Mount
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		target := "/etc/" + name
		if slices.ContainsFunc(have, func(m cruntime.Mount) bool { return filepath.Clean(m.Target) == target }) {
			continue
		}
		out = append(out, cruntime.Mount{Source: filepath.Join(h.m.cfg.Runtime.Files(h.uid), name), Target: target, ReadOnly: readOnly})
	}
	path := h.messagePath(c.Name, attempt)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Chmod(0o666); err != nil { // whatever user the container runs as
		return nil, err
	}
	target := c.TerminationMessagePath
	if target == "" {
		target = corev1.TerminationMessagePathDefault
	}
	return append(out, cruntime.Mount{Source: path, Target: target}), nil
}

// messagePath is where a container's attempt leaves its termination message.
func (h *handle) messagePath(container string, attempt int) string {
	return filepath.Join(h.m.cfg.Runtime.Files(h.uid), "message."+container+"."+strconv.Itoa(attempt))
}

const (
	messageMax     = 4096     // bytes of one container's
	messagesMax    = 12 << 10 // bytes of all of a pod's, shared out equally
	messageLogMax  = 2048
	messageLogRows = 80
)

// terminationMessage returns a container's termination message: the end of its message file, or of its log where the policy allows that,
// cut to its share of what a pod may have. The rules are kubelet's.
// The file is gone after a reboot; then what an earlier life of the agent has reported stands.
func (w *worker) terminationMessage(pod *corev1.Pod, c *cruntime.Container) string {
	if old := kube.ContainerStatusNamed(&w.mem.Last, c.Name); old != nil {
		for _, t := range []*corev1.ContainerStateTerminated{old.State.Terminated, old.LastTerminationState.Terminated} {
			if t != nil && t.ContainerID == "containerd://"+c.ID && t.Message != "" {
				return t.Message
			}
		}
	}
	text := w.readMessage(pod, c)
	share := messagesMax / max(len(pod.Spec.InitContainers)+len(pod.Spec.Containers)+len(pod.Spec.EphemeralContainers), 1)
	return text[:min(len(text), share)]
}

// readMessage reads what a container has written, or the end of its log where its policy allows that.
func (h *handle) readMessage(pod *corev1.Pod, c *cruntime.Container) string {
	// A container that an older agent has started has its message file beside its log, until it is started again.
	before := filepath.Join(h.dir, c.Name, strconv.Itoa(c.Attempt)+".message")
	for _, path := range []string{h.messagePath(c.Name, c.Attempt), before} {
		if b, err := safefile.Tail(path, messageMax); err == nil && len(b) > 0 {
			return string(b)
		}
	}
	spec := kube.ContainerNamed(pod, c.Name)
	if spec == nil || spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || c.ExitCode == 0 {
		return ""
	}
	return podlog.Tail(h.logPath(c.Name, c.Attempt), messageLogRows, messageLogMax)
}

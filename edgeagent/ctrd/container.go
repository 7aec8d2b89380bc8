package ctrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podlog"
)

// Labels on containerd's record of a container.
const (
	labelPod       = "petrel.dev/pod" // UID
	labelNamespace = "petrel.dev/namespace"
	labelPodName   = "petrel.dev/pod-name"
	labelName      = "petrel.dev/container"
	labelAttempt   = "petrel.dev/attempt"
	labelSandbox   = "petrel.dev/sandbox"
	labelHash      = "petrel.dev/hash"
	labelShare     = "petrel.dev/share"
	labelImage     = "petrel.dev/image"
	labelImageID   = "petrel.dev/image-id"
	labelLog       = "petrel.dev/log"
	labelFlags     = "petrel.dev/flags" // "t" a terminal, "i" stdin, "o" of one client only, "p" its processes are not alone in their namespace
	labelSignal    = "petrel.dev/stop-signal"
	labelExit      = "petrel.dev/exit" // JSON of exitRecord; present once it has ended
)

// containerID is a function of what is started, so that a start that was cut off is found again.
func containerID(s cruntime.ContainerSpec) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%s", s.PodUID, s.Name, s.Attempt, s.SandboxID))
	return hex.EncodeToString(sum[:])
}

// startingMark is a file in memory that exists while a container is being started.
func (r *Runtime) startingMark(podUID, id string) string {
	return filepath.Join(r.sandboxDir(podUID), "starting-"+id)
}

// Containers implements podrun.Runtime. Those that have their logs elsewhere are another agent's, in the same namespace of a given containerd.
func (r *Runtime) Containers(ctx context.Context, podUID string) ([]cruntime.Container, error) {
	ctx = r.ns(ctx)
	filter := `labels."` + labelPod + `"`
	if podUID != "" {
		filter += "==" + strconv.Quote(podUID)
	}
	list, err := r.client.ContainerService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("containers: %w", err)
	}
	out := make([]cruntime.Container, 0, len(list))
	for _, info := range list {
		if podUID == "" && r.child == nil && !strings.HasPrefix(info.Labels[labelLog], r.cfg.DataDir+"/") {
			continue
		}
		c, err := r.observe(ctx, info)
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil && podUID == "" && ctx.Err() == nil {
			// A shim that hangs concerns one pod, which gets the error when it lists its own containers.
			r.cfg.Log.Warn("container cannot be looked at, going on without it", "container", info.ID, "pod", c.PodUID, "error", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", info.ID, err)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b cruntime.Container) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if a.Attempt != b.Attempt {
			return a.Attempt - b.Attempt
		}
		return a.CreatedAt.Compare(b.CreatedAt)
	})
	return out, nil
}

// observe turns containerd's record and task into a Container; the first to see an end writes it down.
func (r *Runtime) observe(ctx context.Context, info containers.Container) (cruntime.Container, error) {
	l := info.Labels
	attempt, _ := strconv.Atoi(l[labelAttempt])
	c := cruntime.Container{ID: info.ID, PodUID: l[labelPod], Namespace: l[labelNamespace], Pod: l[labelPodName], Name: l[labelName],
		Attempt: attempt, SandboxID: l[labelSandbox], Hash: l[labelHash], Share: l[labelShare], Image: l[labelImage], ImageID: l[labelImageID], LogPath: l[labelLog],
		TTY: strings.Contains(l[labelFlags], "t"), Stdin: strings.Contains(l[labelFlags], "i"),
		CreatedAt: info.CreatedAt, StartedAt: info.CreatedAt}
	r.mu.Lock()
	r.pods[c.ID] = c.PodUID
	starting, ending := r.starting[c.ID], r.ending[c.ID]
	r.mu.Unlock()
	if e, ok := readExit(l); ok {
		if ending != nil { // its processes are gone, its cgroup may not be yet
			await(ctx, ending, lookLimit)
		}
		return e.of(c), nil
	}
	if starting {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	container, err := r.client.LoadContainer(ctx, c.ID)
	if err != nil {
		return c, err
	}
	task, err := container.Task(ctx, nil)
	if err != nil && !errdefs.IsNotFound(err) {
		return c, err
	}
	if err == nil {
		var st client.Status
		if st, err = task.Status(ctx); err != nil && !errdefs.IsNotFound(err) {
			return c, err
		}
		if err == nil && st.Status == client.Created {
			return c, nil
		}
		if err == nil && st.Status != client.Stopped {
			c.State = cruntime.Running
			r.noteTask(c, int(task.Pid()))
			return c, nil
		}
	} else if _, err := os.Stat(r.startingMark(c.PodUID, c.ID)); err == nil {
		return c, nil // made, but never started: the agent died in between
	}
	return r.ended(ctx, container, c)
}

// noteTask remembers a running container for rescue.
func (r *Runtime) noteTask(c cruntime.Container, pid int) {
	if c.LogPath == "" || c.TTY {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.tasks[c.ID]; !known {
		r.tasks[c.ID] = runningTask{pid: pid, logPath: c.LogPath}
	}
}

// Start implements podrun.Runtime.
func (r *Runtime) Start(ctx context.Context, spec cruntime.ContainerSpec) (string, error) {
	id := containerID(spec)
	ctx = r.ns(ctx)
	if reason, why := r.NoMemoryLimits(); spec.Resources.MemoryLimit > 0 && reason != "" {
		return "", fmt.Errorf("%w: the memory limit of container %s cannot be kept: %s", cruntime.ErrConfig, spec.Name, why)
	}
	done, err := r.turns.Start(ctx, spec.PodUID)
	if err != nil {
		return "", fmt.Errorf("container %s: %w", spec.Name, err)
	}
	defer done()
	r.mu.Lock()
	if r.starting[id] {
		r.mu.Unlock()
		return "", fmt.Errorf("container %s is being started already", spec.Name)
	}
	r.starting[id], r.pods[id] = true, spec.PodUID
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.starting, id)
		r.mu.Unlock()
	}()
	if running, err := r.clearEarlier(ctx, spec.PodUID, id); err != nil || running {
		return id, err
	}
	mark := r.startingMark(spec.PodUID, id)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return "", fmt.Errorf("container %s: %w", spec.Name, err)
	}
	container, err := r.create(ctx, id, spec)
	if err != nil {
		return "", err // the mark stays: containerd may have made the record all the same
	}
	if err := r.startTask(ctx, container, spec); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		err = fmt.Errorf("failed to start container %s: %w", spec.Name, err)
		if shimLeaving(err) { // containerd's failure, not the container's: the mark stays, and the next call does it again
			return "", err
		}
		if e := writeExit(ctx, container, exitRecord{Code: 128, At: time.Now().UTC(), StartError: err.Error()}); e != nil {
			return "", errors.Join(err, e)
		}
		_ = os.Remove(mark)
		r.pump.Finish(spec.LogPath)
		return id, err
	}
	_ = os.Remove(mark)
	r.publish(spec.PodUID)
	return id, nil
}

// clearEarlier looks at what an earlier call for the same attempt has left: a running container stays, a half-made one
// goes.
func (r *Runtime) clearEarlier(ctx context.Context, podUID, id string) (running bool, err error) {
	old, err := r.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if task, err := old.Task(ctx, nil); err == nil {
		if st, err := task.Status(ctx); err == nil && st.Status == client.Running {
			return true, nil
		}
		_ = r.deleteTask(ctx, podUID, id, task)
	}
	if err := old.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return false, err
	}
	return false, nil
}

// create makes the record and the file system of a container.
func (r *Runtime) create(ctx context.Context, id string, spec cruntime.ContainerSpec) (client.Container, error) {
	image, err := r.image(ctx, spec.Image)
	if err != nil {
		return nil, err
	}
	config, err := imageConfig(ctx, image)
	if err != nil {
		return nil, err
	}
	opts, err := r.specOpts(ctx, id, spec, config)
	if err != nil {
		return nil, err
	}
	flags := ""
	for f, on := range map[string]bool{"t": spec.TTY, "i": spec.Stdin, "o": spec.StdinOnce, "p": spec.HostPID || spec.SharePID || spec.TargetID != ""} {
		if on {
			flags += f
		}
	}
	labels := map[string]string{labelPod: spec.PodUID, labelNamespace: spec.Namespace, labelPodName: spec.Pod, labelName: spec.Name,
		labelAttempt: strconv.Itoa(spec.Attempt), labelSandbox: spec.SandboxID, labelHash: spec.Hash, labelShare: spec.Share, labelImage: spec.Image,
		labelImageID: imageID(image), labelLog: spec.LogPath, labelFlags: flags, labelSignal: config.StopSignal}
	// The image may have been unpacked for another snapshotter, or its snapshots collected.
	if ok, err := image.IsUnpacked(ctx, r.snapshotter); err == nil && !ok {
		if err := image.Unpack(ctx, r.snapshotter); err != nil {
			return nil, fmt.Errorf("image %s: unpack: %w", spec.Image, err)
		}
	}
	container, err := r.client.NewContainer(ctx, id, client.WithImage(image), client.WithContainerLabels(labels),
		client.WithSnapshotter(r.snapshotter), client.WithNewSnapshot(id, image), client.WithNewSpec(opts...))
	if err != nil {
		_ = r.client.SnapshotService(r.snapshotter).Remove(ctx, id)
		return nil, fmt.Errorf("container %s: %w", spec.Name, err)
	}
	return container, nil
}

// startTask runs a container, whose output goes to its log.
func (r *Runtime) startTask(ctx context.Context, container client.Container, spec cruntime.ContainerSpec) error {
	if spec.LogPath != "" {
		if err := os.MkdirAll(filepath.Dir(spec.LogPath), 0o755); err != nil {
			return err
		}
		if err := podlog.Prepare(spec.LogPath); err != nil {
			return err
		}
		if err := r.pump.Add(spec.LogPath); err != nil {
			return err
		}
	}
	_, err := r.runTask(ctx, spec.PodUID, container, r.stdio(spec))
	return err
}

// stdio has the shim append output to the log's spool, and read stdin from a pipe that attach writes to.
func (r *Runtime) stdio(spec cruntime.ContainerSpec) cio.Creator {
	return func(string) (cio.IO, error) {
		f := files{Terminal: spec.TTY}
		if spec.LogPath != "" {
			f.Stdout, f.Stderr = podlog.SpoolPaths(spec.LogPath)
		}
		if spec.TTY {
			f.Stderr = ""
		}
		if spec.Stdin {
			f.Stdin = r.stdinPath(spec.PodUID, spec.Name)
			if err := unix.Mkfifo(f.Stdin, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, fmt.Errorf("stdin: %w", err)
			}
		}
		return f, nil
	}
}

func (r *Runtime) stdinPath(podUID, container string) string {
	return filepath.Join(r.sandboxDir(podUID), "stdin-"+container)
}

// files is a cio.IO of which nothing is in this process.
type files cio.Config

func (f files) Config() cio.Config { return cio.Config(f) }
func (files) Cancel()              {}
func (files) Wait()                {}
func (files) Close() error         { return nil }

// started loads a container and its first process; the error is as podrun.Runtime wants it. ctx has the namespace.
func (r *Runtime) started(ctx context.Context, id string) (client.Container, client.Task, error) {
	container, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, nil, notFound(err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return nil, nil, notFound(err)
	}
	return container, task, nil
}

// Signal implements podrun.Runtime.
func (r *Runtime) Signal(ctx context.Context, id string, sig syscall.Signal) error {
	ctx = r.ns(ctx)
	container, task, err := r.started(ctx, id)
	if err != nil {
		return err
	}
	labels, err := container.Labels(ctx)
	if err != nil {
		return notFound(err)
	}
	if sig == 0 {
		sig = stopSignal(labels[labelSignal])
	}
	var opts []client.KillOpts
	if sig == syscall.SIGKILL && strings.Contains(labels[labelFlags], "p") {
		opts = append(opts, client.WithKillAll)
	}
	return notFound(task.Kill(ctx, sig, opts...))
}

// stopSignal reads an image's STOPSIGNAL: a name with or without "SIG", or a number.
func stopSignal(s string) syscall.Signal {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n)
	}
	if s != "" {
		name := strings.ToUpper(s)
		if !strings.HasPrefix(name, "SIG") {
			name = "SIG" + name
		}
		if sig := unix.SignalNum(name); sig != 0 {
			return sig
		}
	}
	return syscall.SIGTERM
}

// notFound marks what is not there in podrun's way.
func notFound(err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %v", cruntime.ErrNotFound, err)
	}
	return err
}

// Remove implements podrun.Runtime.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	ctx = r.ns(ctx)
	container, err := r.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if task, err := container.Task(ctx, nil); err == nil {
		if st, err := task.Status(ctx); err == nil && st.Status == client.Running {
			return fmt.Errorf("container %s still runs", id)
		}
		l, err := container.Labels(ctx)
		if err == nil {
			err = r.deleteTask(ctx, l[labelPod], id, task)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if l, err := container.Labels(ctx); err == nil {
		r.pump.Finish(l[labelLog])
	}
	if err := container.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("container %s: %w", id, err)
	}
	r.mu.Lock()
	delete(r.pods, id)
	delete(r.tasks, id)
	r.mu.Unlock()
	return nil
}

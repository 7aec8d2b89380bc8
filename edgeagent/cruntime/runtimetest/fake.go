package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Fake is a Runtime in memory. Its containers are either what a test makes of them with Exit, or, with Host, plain
// processes of this machine without any isolation.
type Fake struct {
	// Host runs containers' commands as processes; for the conformance suite.
	Host string // a directory for its scratch files; "": no processes
	// Deaf containers, by name, ignore all signals but SIGKILL.
	Deaf map[string]bool
	// PullError, if set, may refuse a pull; otherwise every pull succeeds. PullWait, if set, goes on for as long as a pull takes.
	PullError func(ref string) error
	PullWait  func(ctx context.Context, ref string)
	// StartWait, if set, goes on for as long as a start takes.
	StartWait func(ctx context.Context, spec cruntime.ContainerSpec)
	// ContainersError, if set, may refuse a look at the containers, as a runtime does that is away.
	ContainersError func() error
	// RemoveSandboxError, if set, may keep a sandbox, as one in which a process hangs.
	RemoveSandboxError func() error
	// MemoryUsed is what containers use, in bytes, by name; "" of pods. UpdateError, if set, may refuse to change a container. Set before
	// the first call.
	MemoryUsed  map[string]int64
	UpdateError func(name string) error
	// Written is what containers have written to their root file systems, in bytes, by name; set before the first call.
	Written map[string]int64
	// OnExec, if set, is what Exec does.
	OnExec func(c cruntime.Container, spec cruntime.ExecSpec) (int, error)

	dir       string // for pods' own files, which go with their sandboxes; constant
	mu        sync.Mutex
	calls     map[string]int
	sandboxes map[string]sandbox
	made      int
	list      []*container
	images    map[string]bool
	subs      map[chan string]struct{}
}

type sandbox struct {
	id, hostname string
	bounds       cruntime.Resources
}

type container struct {
	cruntime.Container
	spec cruntime.ContainerSpec
	cmd  *exec.Cmd
}

// NewFake makes a Fake that has the given images. dir is for the files of pods.
func NewFake(dir string, images ...string) *Fake {
	f := &Fake{dir: dir, Deaf: map[string]bool{}, calls: map[string]int{}, sandboxes: map[string]sandbox{}, images: map[string]bool{}, subs: map[chan string]struct{}{}}
	for _, i := range images {
		f.images[i] = true
	}
	return f
}

// Calls counts the calls of all methods so far.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		n += c
	}
	return n
}

// Count is how often one method was called.
func (f *Fake) Count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// enter counts a call and locks; the caller unlocks.
func (f *Fake) enter(method string) {
	f.mu.Lock()
	f.calls[method]++
}

// Exit ends the running container of a pod with a code, as if by itself. false: none runs.
func (f *Fake) Exit(podUID, name string, code int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.list {
		if c.PodUID == podUID && c.Name == name && c.State == cruntime.Running {
			f.ended(c, code)
			return true
		}
	}
	return false
}

func (f *Fake) ended(c *container, code int) {
	c.State, c.ExitCode, c.FinishedAt = cruntime.Exited, code, time.Now()
	for s := range f.subs {
		select {
		case s <- c.PodUID:
		default:
		}
	}
}

// Sandbox implements podrun.Runtime.
func (f *Fake) Sandbox(_ context.Context, spec cruntime.SandboxSpec) (cruntime.Sandbox, error) {
	f.enter("Sandbox")
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[spec.PodUID]
	if !ok {
		f.made++
		sb = sandbox{id: fmt.Sprint("sandbox-", f.made), hostname: spec.Hostname}
	}
	sb.bound(spec.Resources, ok && spec.Raise)
	f.sandboxes[spec.PodUID] = sb
	return cruntime.Sandbox{ID: sb.id}, os.MkdirAll(f.Files(spec.PodUID), 0o700)
}

// bound sets limits, or only makes them larger.
func (sb *sandbox) bound(res cruntime.Resources, raise bool) {
	larger := func(have, want int64) int64 {
		if have == 0 || want == 0 {
			return 0
		}
		return max(have, want)
	}
	if raise {
		res.MemoryLimit, res.CPUQuota = larger(sb.bounds.MemoryLimit, res.MemoryLimit), larger(sb.bounds.CPUQuota, res.CPUQuota)
	}
	sb.bounds = res
}

// BoundPod implements podrun.Runtime.
func (f *Fake) BoundPod(_ context.Context, podUID string, res cruntime.Resources, raise bool) error {
	f.enter("BoundPod")
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[podUID]
	if !ok {
		return fmt.Errorf("%w: sandbox of pod %s", cruntime.ErrNotFound, podUID)
	}
	sb.bound(res, raise)
	f.sandboxes[podUID] = sb
	return nil
}

// Bounds returns what a pod as a whole is bounded to.
func (f *Fake) Bounds(podUID string) cruntime.Resources {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sandboxes[podUID].bounds
}

// Update implements podrun.Runtime.
func (f *Fake) Update(_ context.Context, id string, res cruntime.Resources, share string) error {
	f.enter("Update")
	defer f.mu.Unlock()
	c := f.find(id)
	if c == nil || c.State != cruntime.Running {
		return fmt.Errorf("%w: container %s", cruntime.ErrNotFound, id)
	}
	if f.UpdateError != nil {
		if err := f.UpdateError(c.Name); err != nil {
			return err
		}
	}
	c.spec.Resources, c.Share = res, share
	return nil
}

// MemoryUse implements podrun.Runtime.
func (f *Fake) MemoryUse(_ context.Context, podUID, id string) (use, limit int64, err error) {
	f.enter("MemoryUse")
	defer f.mu.Unlock()
	if id == "" {
		return f.MemoryUsed[""], f.sandboxes[podUID].bounds.MemoryLimit, nil
	}
	c := f.find(id)
	if c == nil || c.State != cruntime.Running {
		return 0, 0, fmt.Errorf("%w: container %s", cruntime.ErrNotFound, id)
	}
	return f.MemoryUsed[c.Name], c.spec.Resources.MemoryLimit, nil
}

// Files implements podrun.Runtime.
func (f *Fake) Files(podUID string) string {
	return filepath.Join(f.dir, podUID+".files")
}

// RemoveSandbox implements podrun.Runtime.
func (f *Fake) RemoveSandbox(_ context.Context, podUID string) error {
	f.enter("RemoveSandbox")
	defer f.mu.Unlock()
	if f.RemoveSandboxError != nil {
		if err := f.RemoveSandboxError(); err != nil {
			return err
		}
	}
	delete(f.sandboxes, podUID)
	return os.RemoveAll(f.Files(podUID))
}

// Containers implements podrun.Runtime.
func (f *Fake) Containers(_ context.Context, podUID string) ([]cruntime.Container, error) {
	f.enter("Containers")
	defer f.mu.Unlock()
	if f.ContainersError != nil {
		if err := f.ContainersError(); err != nil {
			return nil, err
		}
	}
	var out []cruntime.Container
	for _, c := range f.list {
		if podUID == "" || c.PodUID == podUID {
			out = append(out, c.Container)
		}
	}
	slices.SortStableFunc(out, func(a, b cruntime.Container) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		return a.Attempt - b.Attempt
	})
	return out, nil
}

// Image implements podrun.Runtime.
func (f *Fake) Image(_ context.Context, ref string) (cruntime.Image, error) {
	f.enter("Image")
	defer f.mu.Unlock()
	if strings.ContainsAny(ref, " ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		return cruntime.Image{}, fmt.Errorf("%w: image name %q", cruntime.ErrConfig, ref)
	}
	if !f.images[ref] {
		return cruntime.Image{}, fmt.Errorf("%w: image %s", cruntime.ErrNotFound, ref)
	}
	return imageOf(ref), nil
}

func imageOf(ref string) cruntime.Image {
	digest := fmt.Sprintf("sha256:%064x", len(ref))
	return cruntime.Image{Ref: ref, Digest: digest, ID: ref + "@" + digest}
}

// Pull implements podrun.Runtime.
func (f *Fake) Pull(ctx context.Context, ref string, _ []cruntime.Credential) (cruntime.Image, error) {
	if f.PullWait != nil {
		f.PullWait(ctx, ref)
	}
	f.enter("Pull")
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return cruntime.Image{}, err
	}
	if f.PullError != nil {
		if err := f.PullError(ref); err != nil {
			return cruntime.Image{}, err
		}
	}
	f.images[ref] = true
	return imageOf(ref), nil
}

// DiskUsage implements podrun.Runtime.
func (f *Fake) DiskUsage(_ context.Context, id string) (int64, error) {
	f.enter("DiskUsage")
	defer f.mu.Unlock()
	for _, c := range f.list {
		if c.ID == id {
			return f.Written[c.Name], nil
		}
	}
	return 0, fmt.Errorf("%w: container %s", cruntime.ErrNotFound, id)
}

// Start implements podrun.Runtime.
func (f *Fake) Start(ctx context.Context, spec cruntime.ContainerSpec) (string, error) {
	if f.StartWait != nil {
		f.StartWait(ctx, spec)
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	f.enter("Start")
	defer f.mu.Unlock()
	id := fmt.Sprintf("%s-%s-%d-%s", spec.PodUID, spec.Name, spec.Attempt, spec.SandboxID)
	for _, c := range f.list {
		if c.ID == id {
			return id, nil
		}
	}
	c := &container{spec: spec, Container: cruntime.Container{ID: id, PodUID: spec.PodUID, Namespace: spec.Namespace, Pod: spec.Pod, Name: spec.Name,
		Attempt: spec.Attempt, SandboxID: spec.SandboxID, Hash: spec.Hash, Share: spec.Share, Image: spec.Image, ImageID: imageOf(spec.Image).ID, LogPath: spec.LogPath,
		TTY: spec.TTY, Stdin: spec.Stdin, State: cruntime.Running, CreatedAt: time.Now(), StartedAt: time.Now()}}
	f.list = append(f.list, c)
	if f.Host == "" {
		return id, nil
	}
	if err := f.spawn(c); err != nil {
		c.StartError, c.StartedAt = err.Error(), time.Time{}
		f.ended(c, 128)
		return id, err
	}
	return id, nil
}

func (f *Fake) command(c *container, argv []string) *exec.Cmd {
	bin := filepath.Join(f.Host, c.PodUID)
	_ = os.MkdirAll(bin, 0o755)
	_ = os.WriteFile(filepath.Join(bin, "hostname"), []byte("#!/bin/sh\necho "+f.sandboxes[c.PodUID].hostname+"\n"), 0o755)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=" + bin + ":/usr/bin:/bin"}, c.spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// spawn runs a container's command; the log is what it writes, as it is.
func (f *Fake) spawn(c *container) error {
	if err := os.MkdirAll(filepath.Dir(c.LogPath), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(c.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = f.command(c, append(slices.Clone(c.spec.Command), c.spec.Args...))
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = c.cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended(c, exitCode(c.cmd.ProcessState))
	}()
	return nil
}

func exitCode(st *os.ProcessState) int {
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}

func (f *Fake) find(id string) *container {
	for _, c := range f.list {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// Signal implements podrun.Runtime.
func (f *Fake) Signal(_ context.Context, id string, sig syscall.Signal) error {
	f.enter("Signal")
	defer f.mu.Unlock()
	c := f.find(id)
	if c == nil || c.State != cruntime.Running {
		return fmt.Errorf("%w: container %s", cruntime.ErrNotFound, id)
	}
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	switch {
	case c.cmd != nil && sig == syscall.SIGKILL:
		return syscall.Kill(-c.cmd.Process.Pid, sig)
	case c.cmd != nil:
		return c.cmd.Process.Signal(sig)
	case !f.Deaf[c.Name] || sig == syscall.SIGKILL:
		f.ended(c, 128+int(sig))
	}
	return nil
}

// Remove implements podrun.Runtime.
func (f *Fake) Remove(_ context.Context, id string) error {
	f.enter("Remove")
	defer f.mu.Unlock()
	if c := f.find(id); c != nil && c.State == cruntime.Running {
		return errors.New("container still runs")
	}
	f.list = slices.DeleteFunc(f.list, func(c *container) bool { return c.ID == id })
	return nil
}

// Exec implements podrun.Runtime.
func (f *Fake) Exec(ctx context.Context, id string, spec cruntime.ExecSpec) (int, error) {
	f.enter("Exec")
	c := f.find(id)
	if c == nil || c.State != cruntime.Running {
		f.mu.Unlock()
		return 0, fmt.Errorf("%w: container %s", cruntime.ErrNotFound, id)
	}
	if f.Host == "" {
		on, info := f.OnExec, c.Container
		f.mu.Unlock()
		if on == nil {
			return 0, nil
		}
		return on(info, spec)
	}
	cmd := f.command(c, spec.Command)
	f.mu.Unlock()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = spec.Stdin, spec.Stdout, spec.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	_ = cmd.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return exitCode(cmd.ProcessState), nil
}

// Events implements podrun.Runtime.
func (f *Fake) Events(ctx context.Context) <-chan string {
	c := make(chan string, 64)
	f.enter("Events")
	f.subs[c] = struct{}{}
	f.mu.Unlock()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		delete(f.subs, c)
		close(c)
		f.mu.Unlock()
	})
	return c
}

var _ cruntime.Runtime = (*Fake)(nil)

// Hostname returns the host name that a pod's sandbox was made with, "" when there is none.
func (f *Fake) Hostname(podUID string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sandboxes[podUID].hostname
}

// Spec returns what the newest attempt of a container was started with.
func (f *Fake) Spec(podUID, name string) cruntime.ContainerSpec {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.list) - 1; i >= 0; i-- {
		if c := f.list[i]; c.PodUID == podUID && c.Name == name {
			return c.spec
		}
	}
	return cruntime.ContainerSpec{}
}

package ctrd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/programs"
)

// heldRunc notes in dir, as a file "beside", when a container is made while another is deleted, and takes as long for either as there is a
// file "hold-create" or "hold-delete".
const heldRunc = `#!/bin/sh
case " $* " in
*" delete "*) mine=delete other=create ;;
*" create "*) mine=create other=delete ;;
*) exec REAL "$@" ;;
esac
[ -e DIR/$other ] && echo "$*" >> DIR/beside
touch DIR/$mine
while [ -e DIR/hold-$mine ]; do sleep 0.02; done
REAL "$@"
code=$?
rm -f DIR/$mine
exit $code
`

// withHeldRunc opens a runtime with heldRunc in place of runc.
func withHeldRunc(t *testing.T) (r *Runtime, dir string) {
	t.Helper()
	need(t)
	dir = t.TempDir()
	script := func(path, program string) {
		if err := os.WriteFile(path, []byte(strings.NewReplacer("DIR", dir, "REAL", program).Replace(heldRunc)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if len(programs.Embedded()) == 0 { // containerd finds it in the PATH
		program, err := exec.LookPath(programs.Runc)
		if err != nil {
			t.Fatal(err)
		}
		script(filepath.Join(dir, programs.Runc), program)
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		return private(t), dir
	}
	r = private(t)
	path := r.programs.Path(programs.Runc)
	if err := os.Rename(path, path+".real"); err != nil {
		t.Fatal(err)
	}
	script(path, path+".real")
	return r, dir
}

// heldPod is a pod of a runtime with heldRunc.
type heldPod struct {
	t    *testing.T
	r    *Runtime
	dir  string
	spec cruntime.ContainerSpec // but for its name and attempt
}

func newHeldPod(t *testing.T) *heldPod {
	r, dir := withHeldRunc(t)
	sb, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: "held", Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removePod(t, r, "held") })
	return &heldPod{t, r, dir, cruntime.ContainerSpec{PodUID: "held", SandboxID: sb.ID, Image: testImage, Command: []string{"/bin/sleep", "1000"}}}
}

// start starts an attempt of a container and returns its ID.
func (p *heldPod) start(name string, attempt int) (string, error) {
	spec := p.spec
	spec.Name, spec.Attempt, spec.LogPath = name, attempt, filepath.Join(p.dir, fmt.Sprintf("%s-%d.log", name, attempt))
	return p.r.Start(context.Background(), spec)
}

// hold has runc take as long as there is a file; release ends that.
func (p *heldPod) hold(what string) (release func()) {
	file := filepath.Join(p.dir, "hold-"+what)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
	release = func() { _ = os.Remove(file) }
	p.t.Cleanup(release)
	return release
}

// eventually waits until something is so.
func (p *heldPod) eventually(what string, is func() bool) {
	p.t.Helper()
	for end := time.Now().Add(runtimetest.Hope); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited for long: %s", what)
		}
	}
}

// busy waits until runc is at something.
func (p *heldPod) busy(what string) {
	p.t.Helper()
	p.eventually("runc is at "+what, func() bool {
		_, err := os.Stat(filepath.Join(p.dir, what))
		return err == nil
	})
}

// endWritten reports whether it is written down how a container has ended.
func (p *heldPod) endWritten(id string) bool {
	info, err := p.r.client.ContainerService().Get(p.r.ns(context.Background()), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return info.Labels[labelExit] != ""
}

// kill kills a container, and has an observer see that it has ended; done is closed when it has seen all of it.
func (p *heldPod) kill(id string) (done chan struct{}) {
	p.t.Helper()
	if err := p.r.Signal(context.Background(), id, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	done = make(chan struct{})
	go func() {
		defer close(done)
		for {
			list, err := p.r.Containers(context.Background(), "held")
			if i := slices.IndexFunc(list, func(c cruntime.Container) bool { return c.ID == id }); err != nil || i < 0 || list[i].State == cruntime.Exited {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	p.eventually("the end of the container is written down", func() bool { return p.endWritten(id) })
	return done
}

// check checks that the newest attempts run, and that nothing has been made beside a deletion.
func (p *heldPod) check(want ...string) {
	p.t.Helper()
	if b, err := os.ReadFile(filepath.Join(p.dir, "beside")); err == nil {
		p.t.Errorf("runc was called beside another: %s", b)
	}
	list, err := p.r.Containers(context.Background(), "held")
	var got []string
	for _, c := range list {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s#%d %s %s", c.Name, c.Attempt, []string{"made", "runs", "has ended"}[c.State], c.StartError)))
	}
	if err != nil || !slices.Equal(got, want) {
		p.t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// TestStartAfterDeletion restarts the only container of a pod as soon as one of two observers has written down its end, while the other has
// its task deleted: the shim, which ends with the task, must not have begun with the next.
func TestStartAfterDeletion(t *testing.T) {
	p := newHeldPod(t)
	id, err := p.start("c", 0)
	if err != nil {
		t.Fatal(err)
	}
	release := p.hold("delete")
	seen := p.kill(id)
	p.busy("delete")
	other := make(chan struct{})
	go func() {
		defer close(other)
		_, _ = p.r.Containers(context.Background(), "held")
	}()
	started := make(chan error, 1)
	go func() {
		_, err := p.start("c", 1)
		started <- err
	}()
	time.Sleep(300 * time.Millisecond) // for a start that does not wait
	select {
	case <-other:
		t.Error("the container counts as ended for the other while its cgroup is there")
	case <-seen:
		t.Error("the container counts as ended while its cgroup is there")
	default:
	}
	release()
	if err := <-started; err != nil {
		t.Error(err)
	}
	<-seen
	<-other
	p.check("c#0 has ended", "c#1 runs")
}

// TestDeletionAfterStart has the only container of a pod end while a second is being made: the shim, which does not know the second yet,
// must not be asked to end, and those who look at the pod must not wait.
func TestDeletionAfterStart(t *testing.T) {
	p := newHeldPod(t)
	if v, err := p.r.Version(t.Context()); err != nil || strings.HasPrefix(v, "1.") {
		t.Skipf("the shim of containerd %s does one thing at a time (%v)", v, err)
	}
	id, err := p.start("c", 0)
	if err != nil {
		t.Fatal(err)
	}
	release := p.hold("create")
	started := make(chan error, 1)
	go func() {
		_, err := p.start("d", 0)
		started <- err
	}()
	p.busy("create")
	select {
	case <-p.kill(id):
	case <-time.After(runtimetest.Hope):
		t.Error("who looks at the pod waits for the start")
	}
	release()
	if err := <-started; err != nil {
		t.Error(err)
	}
	container, err := p.r.client.LoadContainer(p.r.ns(context.Background()), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := container.Task(p.r.ns(context.Background()), nil); !errdefs.IsNotFound(err) {
		t.Errorf("the task of the first container is left: %v", err)
	}
	p.check("c#0 has ended", "d#0 runs")
}

package guide

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/test/harness"
)

// machine is one of the reader's: namespaces with a disk.
type machine struct {
	name  string
	lan   harness.Machine
	disk  string
	env   []string           // what the page has exported
	init  *exec.Cmd          // its first process; nil without power
	stdin io.Closer          // of the first process, which ends when it is closed
	jobs  []*harness.Process // what runs on, in the order of its start
}

// isMachine is the variable by which this test's binary, started again, is the first process of a machine: its name and its disk.
const isMachine = "PETREL_GUIDE_MACHINE"

// boot switches the machine on.
func (m *machine) boot(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.lan.Command(context.Background(), self)
	cmd.Env = append(os.Environ(), isMachine+"="+m.name+"="+m.disk)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC, Setpgid: true}
	out := &harness.LockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.init, m.stdin = cmd, stdin
	harness.Eventually(t, 20*time.Second, m.name+" boots", func() error {
		if out.String() != "booted\n" {
			return fmt.Errorf("it says %q", out.String())
		}
		return nil
	})
	// What an init system does: services in the order of their names.
	if out, err := m.run("for s in /etc/rc2.d/S*petrel-*; do [ ! -e $s ] || $s start; done"); err != nil {
		t.Fatalf("services of %s: %v: %s", m.name, err, out)
	}
}

// cut takes the power away: all processes end at once, and with the last one the mounts are gone.
func (m *machine) cut() {
	if m.init == nil {
		return
	}
	_ = m.init.Process.Kill() // the first process of a namespace takes all others with it
	_ = m.stdin.Close()
	_ = m.init.Wait()
	for _, j := range m.jobs {
		j.Stop(syscall.SIGKILL)
	}
	m.init, m.jobs = nil, nil
}

// shutDown ends what runs on as a reader would, the latest first, and then the machine.
func (m *machine) shutDown() {
	for i := len(m.jobs) - 1; i >= 0; i-- {
		m.interrupt(m.jobs[i])
	}
	m.cut()
}

// interrupt is Ctrl-C: the signal reaches all processes of the terminal's group.
func (m *machine) interrupt(j *harness.Process) {
	_ = syscall.Kill(-j.Cmd.Process.Pid, syscall.SIGINT) // it may have ended
	select {
	case err := <-j.Done:
		j.Done <- err
	case <-time.After(40 * time.Second):
		_ = syscall.Kill(-j.Cmd.Process.Pid, syscall.SIGKILL)
	}
}

// command is a command line on the machine, as a shell runs it in the home directory of root.
func (m *machine) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--uts", "--ipc", "--net", "--pid",
		"bash", "-c", "cd && "+line)
	cmd.Env = append([]string{"HOME=/root", "USER=root", "TERM=dumb", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, m.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a command line to its end, and returns what it has printed.
func (m *machine) run(line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := m.command(ctx, line)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a service that the command has started may keep its output
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// start starts a command line that runs on.
func (m *machine) start(t *testing.T, line string) *harness.Process {
	t.Helper()
	out := &harness.LockedBuffer{}
	j := &harness.Process{Cmd: m.command(context.Background(), "exec "+line), Out: out, Done: make(chan error, 1)}
	j.Cmd.Stdout, j.Cmd.Stderr = out, out
	if err := j.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { j.Done <- j.Cmd.Wait() }()
	m.jobs = append(m.jobs, j)
	return j
}

// first is the first process of a machine. It returns when there is no such machine to be: in the test itself.
func first() error {
	name, disk, ok := strings.Cut(os.Getenv(isMachine), "=")
	if !ok {
		return nil
	}
	if err := mounts(disk); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended { // orphans are its children
			for pid, err := 1, error(nil); pid > 0 && err == nil; {
				pid, err = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}()
	fmt.Println("booted")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	os.Exit(0)
	return nil
}

// mounts gives this process and those to come the machine's disk.
func mounts(disk string) error {
	at := func(name string) string { return filepath.Join(disk, name) }
	for _, d := range []string{"etc", "etc.work", "root", "bin", "lib", "log"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", 0, ""},
		{"etc", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=" + at("etc") + ",workdir=" + at("etc.work")},
		{"run", "/run", "tmpfs", 0, "mode=755"},
		{at("root"), "/root", "", unix.MS_BIND, ""},
		{at("bin"), "/usr/local/bin", "", unix.MS_BIND, ""},
		{at("lib"), "/var/lib", "", unix.MS_BIND, ""},
		{at("log"), "/var/log", "", unix.MS_BIND, ""},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

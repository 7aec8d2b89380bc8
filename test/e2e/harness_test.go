package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/internal/buildinfo"
)

// Binaries under test, built once by TestMain.
var petrel, kubectl string

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("4") // unless told otherwise: these tests spend their time waiting for links to break
	}
	code, err := func() (int, error) {
		if why := unable(); why != "" {
			if os.Getenv("CI") == "true" {
				return 1, errors.New("end-to-end tests cannot run: " + why)
			}
			fmt.Println("skipping end-to-end tests:", why)
			return 0, nil
		}
		release, err := alone()
		if err != nil {
			return 1, err
		}
		defer release()
		dir, err := os.MkdirTemp("", "petrel-e2e-bin-")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		if petrel, err = binary(dir, "PETREL_BIN", "petrel", "./cmd/petrel"); err != nil {
			return 1, err
		}
		if kubectl, err = binary(dir, "PETREL_KUBECTL", "kubectl", "./test/tools/kubectl"); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// checkout tells checkouts of this repository apart. Names made with it are the same at each run, so that what a killed
// run left is found.
func checkout() string {
	wd, _ := os.Getwd() // without one, all are alike
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(wd)))
}

// alone waits until no other run of these tests goes on in this checkout.
func alone() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "petrel-e2e-"+checkout()+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// unable says why these tests cannot run here; "" when they can.
func unable() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	for _, tool := range []string{"containerd", "runc", "ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not installed; `make setup` installs it"
		}
	}
	return ""
}

func binary(dir, env, name, pkg string) (string, error) {
	if path := os.Getenv(env); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, name)
	// kubectl refuses to compare versions when its own is not one.
	cmd := exec.Command("go", "build", "-ldflags", "-X k8s.io/component-base/version.gitVersion="+buildinfo.Kubernetes, "-o", path, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// machine is a simulated machine: a network namespace with one interface on the test's LAN. The empty name is this one.
type machine struct {
	ns string
	ip string
}

// here is the machine that the test runs on; its processes listen on loopback.
var here = machine{ip: "127.0.0.1"}

func (m machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if m.ns == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + m.ns, name}, args...)...)
}

// lan makes a switch and n machines on it: 10.99.0.1, .2, ... The test's end removes all of it.
func lan(t *testing.T, name string, n int) []machine {
	t.Helper()
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	sw := "pte-" + checkout() + "-" + name
	var machines []machine
	t.Cleanup(func() {
		for _, m := range machines {
			exec.Command("ip", "netns", "del", m.ns).Run()
		}
		exec.Command("ip", "netns", "del", sw).Run()
	})
	exec.Command("ip", "netns", "del", sw).Run() // of an earlier run that was killed
	ip("netns", "add", sw)
	ip("-n", sw, "link", "add", "br0", "type", "bridge")
	ip("-n", sw, "link", "set", "br0", "up")
	for i := range n {
		m := machine{ns: fmt.Sprintf("%s-%d", sw, i+1), ip: fmt.Sprintf("10.99.0.%d", i+1)}
		exec.Command("ip", "netns", "del", m.ns).Run()
		ip("netns", "add", m.ns)
		machines = append(machines, m)
		port := fmt.Sprintf("p%d", i+1)
		ip("-n", sw, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", m.ns)
		ip("-n", sw, "link", "set", port, "master", "br0", "up")
		ip("-n", m.ns, "link", "set", "lo", "up")
		ip("-n", m.ns, "addr", "add", m.ip+"/24", "dev", "eth0")
		ip("-n", m.ns, "link", "set", "eth0", "up")
		ip("-n", m.ns, "route", "add", "default", "via", "10.99.0.254") // nobody there: only so that there is a default route
	}
	return machines
}

// process is a running petrel; its output goes to the test's log when the test fails.
type process struct {
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, m machine, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: m.command(context.Background(), petrel, args...), out: &lockedBuffer{}, done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("--- output of %s\n%s", name, tail(p.out.String(), 60))
		}
	})
	return p
}

// stop sends sig and waits for the end; a process that ignores it for 20 s is killed.
func (p *process) stop(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case err := <-p.done:
		p.done <- err
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		err := <-p.done
		p.done <- err
	}
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// hub is a running hub and the way to talk to it.
type hub struct {
	*process
	t          *testing.T
	on         machine
	dir        string
	address    string
	kubeconfig string
	args       []string
	env        []string // of its kubectl
	agents     []string // data directories of those that have joined
}

func startHub(t *testing.T, on machine, args ...string) *hub {
	t.Helper()
	h := &hub{t: t, on: on, dir: t.TempDir(), address: net.JoinHostPort(on.ip, freePort(t, on)), args: args}
	h.kubeconfig = filepath.Join(h.dir, "admin.kubeconfig")
	h.start()
	return h
}

// start starts the hub, again with the same directory and address after a stop.
func (h *hub) start() {
	h.t.Helper()
	args := append([]string{"hub", "--data-dir", h.dir, "--listen", h.address, "--advertise", h.on.ip}, h.args...)
	h.process = start(h.t, h.on, "hub", args...)
	h.eventually(10*time.Second, "the hub answers", func() error {
		_, err := h.try("get", "--raw", "/readyz")
		return err
	})
}

// freePort finds a port on loopback; on a machine of its own any is free.
func freePort(t *testing.T, on machine) string {
	t.Helper()
	if on.ns != "" {
		return "6443"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// sub runs a subtest in which failures of h's helpers are the subtest's own.
func (h *hub) sub(name string, f func(t *testing.T)) {
	outer := h.t
	defer func() { h.t = outer }()
	outer.Run(name, func(t *testing.T) {
		h.t = t
		f(t)
	})
}

// try runs the real kubectl and returns its output.
func (h *hub) try(args ...string) (string, error) { return h.tryIn("", args...) }

func (h *hub) tryIn(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := h.on.command(ctx, kubectl, append([]string{"--kubeconfig", h.kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(append(os.Environ(), "HOME="+h.dir), h.env...)
	if err := cmd.Run(); err != nil {
		return out.String() + errOut.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String() + errOut.String(), nil
}

// k runs kubectl, which must succeed.
func (h *hub) k(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// apply applies a manifest.
func (h *hub) apply(manifest string) string {
	h.t.Helper()
	out, err := h.tryIn(manifest, "apply", "-f", "-")
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// eventually waits until f is content. The time is how long to hope, no promise of speed.
func (h *hub) eventually(hope time.Duration, what string, f func() error) {
	h.t.Helper()
	eventually(h.t, hope, what, f)
}

func eventually(t *testing.T, hope time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(hope)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", hope, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// agent is a running node.
type agent struct {
	*process
	t    *testing.T
	on   machine
	dir  string
	name string
	args []string
}

// join starts an agent on a machine and waits until its node is ready.
func (h *hub) join(on machine, name string, args ...string) *agent {
	h.t.Helper()
	a := &agent{t: h.t, on: on, name: name, dir: h.t.TempDir()}
	a.args = append([]string{"--join", h.token()}, args...)
	h.agents = append(h.agents, a.dir)
	sweep(a.t, on, a.dir)
	a.image()
	a.start()
	h.ready(name)
	return a
}

// image puts the demonstration image where the agent imports it from at its start.
func (a *agent) image() {
	a.t.Helper()
	out, err := exec.Command(petrel, "image", "build-hello", "petrel.local/hello:v1", filepath.Join(a.dir, "images", "hello.tar")).CombinedOutput()
	if err != nil {
		a.t.Fatalf("petrel image build-hello: %v: %s", err, out)
	}
}

func (a *agent) start() {
	a.t.Helper()
	args := append([]string{"agent", "--data-dir", a.dir, "--node-name", a.name, "--bridge", "pte0", "--containerd", "private", "--no-keep-pods"}, a.args...)
	a.process = start(a.t, a.on, "agent "+a.name, args...)
}

// ready waits until a node is.
func (h *hub) ready(node string) {
	h.t.Helper()
	h.eventually(30*time.Second, node+" is ready", func() error {
		_, err := h.try("wait", "--for=condition=Ready", "node/"+node, "--timeout=1s")
		return err
	})
}

// available waits until a Deployment is.
func (h *hub) available(name string) {
	h.t.Helper()
	if _, err := h.try("rollout", "status", "deployment/"+name, "--timeout=55s"); err != nil {
		pods, _ := h.try("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.conditions}{"\n"}{end}`)
		status, _ := h.try("get", "deploy,rs", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status}{"\n"}{end}`)
		h.t.Fatalf("%v\n%s%s", err, pods, status)
	}
}

// uids maps the pods of the default namespace to their UID and restarts: equal maps mean that nothing was restarted.
func (h *hub) lives(selector string) string {
	h.t.Helper()
	return h.k("get", "pods", "-l", selector, "--sort-by=.metadata.name", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
}

// podUIDs are the pods of what lives has told.
func podUIDs(lives string) []string {
	var uids []string
	for line := range strings.Lines(lives) {
		uids = append(uids, strings.Fields(line)[1])
	}
	return uids
}

package edgeagent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/programs"
	"petrel.dev/petrel/internal/sdnotify"
	"petrel.dev/petrel/internal/wire"
)

const testImage = "petrel.test/busybox:1"

// The tests run in a network namespace of their own, and agents that are to be killed in processes of their own: both
// are this binary again.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("PETREL_TEST_WALK") != "":
		os.Exit(walkAsNobody())
	case os.Getenv("PETREL_TEST_AGENT") != "":
		os.Exit(agentProcess())
	case os.Geteuid() == 0 && os.Getenv("PETREL_TEST_NETNS") == "":
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "PETREL_TEST_NETNS=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if ok := asExit(err, &exit); ok {
				os.Exit(exit.ExitCode())
			}
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() == 0 {
		if err := network(); err != nil {
			fmt.Fprintln(os.Stderr, "test network:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*exit = e
	return ok
}

// network gives the new namespace a loopback and an interface with an address.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	d := &netlink.Veth{LinkAttrs: attrs, PeerName: "lan"}
	if err := netlink.LinkAdd(d); err != nil {
		return err
	}
	peer, err := netlink.LinkByName("lan")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(peer); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("192.0.2.10/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(d, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(d); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: d.Attrs().Index, Gw: net.ParseIP("192.0.2.1")})
}

// agentProcess is an agent that runs until it is killed; it prints its reports, one JSON a line.
func agentProcess() int {
	var cfg Config
	data, run := os.Getenv("PETREL_TEST_AGENT"), os.Getenv("PETREL_TEST_RUN")
	cfg.DataDir, cfg.RunDir, cfg.NodeName, cfg.PrivateContainerd = data, run, "edge-1", true
	cfg.offline, cfg.Notify = true, sdnotify.FromEnv()
	cfg.imageAge, _ = time.ParseDuration(os.Getenv("PETREL_TEST_IMAGE_AGE")) // without one: zero, the default
	cfg.StopPodsOnExit = os.Getenv("PETREL_TEST_STOP") != ""
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a, err := New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a.watchReports = func(o wire.Object) {
		b, _ := json.Marshal(o)
		fmt.Println(string(b))
	}
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// machine is a node under test: its directories, and the agent process that runs on it, if any.
type machine struct {
	t         *testing.T
	data, run string
	cmd       *exec.Cmd
	stderr    *os.File

	mu       sync.Mutex
	statuses map[string]corev1.PodStatus // by pod UID, latest
	gone     map[string]bool
	events   []corev1.Event
	pressed  map[corev1.NodeConditionType]bool // conditions that were True at some time
	history  map[string][]string               // by pod UID: phases and restart counts as they changed
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		runtimetest.NeedOr(t, "needs root")
	}
	for _, b := range []string{"containerd", "runc"} {
		if _, err := exec.LookPath(b); err != nil && len(programs.Embedded()) == 0 {
			runtimetest.NeedOr(t, b+" is not installed")
		}
	}
	run, err := os.MkdirTemp("/run", "petrel-agent-test-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, data: t.TempDir(), run: run, statuses: map[string]corev1.PodStatus{}, gone: map[string]bool{}, pressed: map[corev1.NodeConditionType]bool{}, history: map[string][]string{}}
	t.Cleanup(func() {
		m.powerOff()
		os.RemoveAll(run)
	})
	images := filepath.Join(m.data, "images")
	if err := os.MkdirAll(images, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(images, "busybox.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, runtimetest.Tar(t, testImage, runtimetest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return m
}

// want makes objects the node's desired set, as the hub would; the agent must not be running.
func (m *machine) want(objects ...any) {
	m.t.Helper()
	c, err := cache.Open(filepath.Join(m.data, "agent", "cache"), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetSettings(wire.Settings{PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", DNSAddress: "10.43.0.10", ClusterDomain: "cluster.local"}); err != nil {
		m.t.Fatal(err)
	}
	b := &wire.Batch{Revision: c.Revision() + 1}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge-1", UID: "node-uid"}, Spec: corev1.NodeSpec{PodCIDR: "10.42.7.0/24", PodCIDRs: []string{"10.42.7.0/24"}}}
	have := map[wire.ID]bool{}
	for _, o := range append(objects, node) {
		obj := wireObject(m.t, o)
		have[obj.ID] = true
		b.Puts = append(b.Puts, wire.Put{Object: obj})
	}
	for _, o := range c.Desired() {
		if !have[o.ID] {
			b.Deletes = append(b.Deletes, o.ID)
		}
	}
	if _, err := c.Apply(b); err != nil {
		m.t.Fatal(err)
	}
}

func wireObject(t *testing.T, v any) wire.Object {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	o := wire.Object{Data: data}
	switch v := v.(type) {
	case *corev1.Pod:
		o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindPod, UID: string(v.UID)}, v.Namespace, v.Name
	case *corev1.ConfigMap:
		o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindConfigMap, UID: string(v.UID)}, v.Namespace, v.Name
	case *corev1.Secret:
		o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindSecret, UID: string(v.UID)}, v.Namespace, v.Name
	case *wire.Token:
		o.ID = wire.ID{Kind: wire.KindToken, UID: v.PodUID + "/" + v.Audience}
	case *corev1.Node:
		o.ID, o.Name = wire.ID{Kind: wire.KindNode, UID: string(v.UID)}, v.Name
	default:
		t.Fatalf("no wire kind for %T", v)
	}
	o.Version = wire.ContentVersion(&o)
	return o
}

// boot starts the agent.
func (m *machine) boot(env ...string) {
	m.t.Helper()
	m.cmd = exec.Command("/proc/self/exe")
	m.cmd.Env = append(append(os.Environ(), "PETREL_TEST_AGENT="+m.data, "PETREL_TEST_RUN="+m.run), env...)
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if m.stderr, err = os.OpenFile(filepath.Join(m.data, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.cmd.Stderr = m.stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go m.read(json.NewDecoder(out))
}

func (m *machine) read(d *json.Decoder) {
	for {
		var o wire.Object
		if d.Decode(&o) != nil {
			return
		}
		m.mu.Lock()
		switch o.Kind {
		case wire.KindPodStatus:
			var r wire.PodReport
			var st corev1.PodStatus
			if json.Unmarshal(o.Data, &r) == nil && json.Unmarshal(r.Status, &st) == nil {
				m.statuses[o.UID], m.gone[o.UID] = st, r.Gone
				line := string(st.Phase)
				for _, c := range st.ContainerStatuses {
					line += fmt.Sprintf(" %s:%d", c.Name, c.RestartCount)
				}
				m.history[o.UID] = append(m.history[o.UID], line)
			}
		case wire.KindNodeStatus:
			var r wire.NodeReport
			var st corev1.NodeStatus
			if json.Unmarshal(o.Data, &r) == nil && json.Unmarshal(r.Status, &st) == nil {
				for _, c := range st.Conditions {
					m.pressed[c.Type] = m.pressed[c.Type] || c.Status == corev1.ConditionTrue
				}
			}
		case wire.KindEvent:
			var e corev1.Event
			if json.Unmarshal(o.Data, &e) == nil {
				m.events = append(m.events, e)
			}
		}
		m.mu.Unlock()
	}
}

// hadCondition reports whether a condition of the node has been True.
func (m *machine) hadCondition(kind corev1.NodeConditionType) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pressed[kind]
}

// kill ends the agent as a power cut would end it, and leaves everything else.
func (m *machine) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
	m.stderr.Close()
}

// term ends the agent as systemd would.
func (m *machine) term() {
	m.t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	if err := m.cmd.Wait(); err != nil {
		m.t.Errorf("agent: %v\n%s", err, m.log())
	}
	m.cmd = nil
	m.stderr.Close()
}

func (m *machine) log() string {
	b, _ := os.ReadFile(filepath.Join(m.data, "agent.log"))
	if len(b) > 6000 {
		b = b[len(b)-6000:]
	}
	return string(b)
}

// powerOff is what a power cut does: every process that belongs to the machine is gone, and so is everything in memory.
func (m *machine) powerOff() {
	m.kill()
	for range 50 {
		n := 0
		for _, pid := range m.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			n++
		}
		if n == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	entries, _ := os.ReadDir(filepath.Join(m.data, "agent", "pods"))
	for _, e := range entries {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/petrel/pod" + e.Name())
		more, _ := filepath.Glob("/sys/fs/cgroup/petrel/pod" + e.Name())
		for _, d := range append(dirs, more...) {
			children, _ := filepath.Glob(d + "/*/")
			for _, c := range append(children, d) {
				_ = syscall.Rmdir(c)
			}
		}
	}
	for range 5 {
		b, _ := os.ReadFile("/proc/self/mountinfo")
		lines := strings.Split(string(b), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			if f := strings.Fields(lines[i]); len(f) > 4 && (strings.HasPrefix(f[4], m.run) || strings.HasPrefix(f[4], m.data)) {
				_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
			}
		}
	}
	entries, _ = os.ReadDir(m.run)
	for _, e := range entries {
		os.RemoveAll(filepath.Join(m.run, e.Name()))
	}
	links, _ := netlink.LinkList()
	for _, l := range links {
		if n := l.Attrs().Name; n != "lo" && n != "eth0" && n != "lan" {
			_ = netlink.LinkDel(l)
		}
	}
}

// processes are containerd, the shims and the containers of this machine.
func (m *machine) processes() []int {
	var out []int
	pods := map[string]bool{}
	entries, _ := os.ReadDir(filepath.Join(m.data, "agent", "pods"))
	for _, e := range entries {
		pods[e.Name()] = true
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cmd, _ := os.ReadFile(p + "/cmdline")
		group, _ := os.ReadFile(p + "/cgroup")
		mine := strings.Contains(string(cmd), m.run) || strings.Contains(string(cmd), filepath.Join(m.data, "agent"))
		for uid := range pods {
			mine = mine || strings.Contains(string(group), "/petrel/pod"+uid+"/")
		}
		if mine {
			var pid int
			if _, err := fmt.Sscan(filepath.Base(p), &pid); err == nil && pid != os.Getpid() {
				if st, err := os.ReadFile(p + "/stat"); err == nil && !strings.Contains(string(st), ") Z ") {
					out = append(out, pid)
				}
			}
		}
	}
	return out
}

// await waits until a pod's status is as wanted.
func (m *machine) await(uid, what string, ok func(corev1.PodStatus) bool) corev1.PodStatus {
	m.t.Helper()
	end := time.Now().Add(runtimetest.Hope)
	for time.Now().Before(end) {
		m.mu.Lock()
		st, known := m.statuses[uid]
		m.mu.Unlock()
		if known && ok(st) {
			return st
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, _ := json.MarshalIndent(m.statuses[uid], "", " ")
	m.t.Fatalf("pod %s never is %s:\n%s\n%s", uid, what, b, m.log())
	return corev1.PodStatus{}
}

func ready(st corev1.PodStatus) bool {
	for _, c := range st.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func pod(name string, containers ...corev1.Container) *corev1.Pod {
	grace := int64(2)
	for i := range containers {
		if containers[i].Image == "" {
			containers[i].Image = testImage
		}
		containers[i].TerminationMessagePath = "/dev/termination-log"
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "edge-1", RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, TerminationGracePeriodSeconds: &grace, Containers: containers},
	}
}

func sh(name, script string) corev1.Container {
	return corev1.Container{Name: name, Command: []string{"/bin/sh", "-c", script}}
}

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

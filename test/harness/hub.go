package harness

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"petrel.dev/petrel/internal/porttest"
)

// Hub is a running hub and the way to talk to it.
type Hub struct {
	*Process
	t          *testing.T
	On         Machine
	Dir        string
	Address    string
	Kubeconfig string
	Args       []string
	Env        []string // of its kubectl
	// AgentEnv are variables of the agents that join from now on.
	AgentEnv []string
	Images   map[string]v1.Image // by reference; the agents that join from now on have them, beside petrel.local/hello:v1
	agents   []string            // data directories of those that have joined
}

// StartHub starts a hub with an empty data directory on a machine and waits until it answers. args are more flags of `petrel hub`.
func StartHub(t *testing.T, on Machine, args ...string) *Hub {
	t.Helper()
	address := net.JoinHostPort(on.IP, "6443") // on a machine of its own any port is free
	if on == Here {
		address = porttest.Address()
		on.IP, _, _ = net.SplitHostPort(address)
	}
	h := &Hub{t: t, On: on, Dir: t.TempDir(), Address: address, Args: args}
	h.Kubeconfig = filepath.Join(h.Dir, "admin.kubeconfig")
	h.Start()
	return h
}

// Start starts the hub, again with the same directory and address after a stop.
func (h *Hub) Start() {
	h.t.Helper()
	args := append([]string{"hub", "--data-dir", h.Dir, "--listen", h.Address, "--advertise", h.On.IP}, h.Args...)
	h.Process = Start(h.t, h.On, "hub", args...)
	h.Eventually(10*time.Second, "the hub answers", func() error {
		_, err := h.TryKubectl("get", "--raw", "/readyz")
		return err
	})
}

// Sub runs a subtest in which failures of h's helpers are the subtest's own.
func (h *Hub) Sub(name string, f func(t *testing.T)) {
	outer := h.t
	defer func() { h.t = outer }()
	outer.Run(name, func(t *testing.T) {
		h.t = t
		f(t)
	})
}

// TryKubectl runs the real kubectl and returns its output.
func (h *Hub) TryKubectl(args ...string) (string, error) { return h.TryKubectlIn("", args...) }

// TryKubectlIn is TryKubectl with a standard input.
func (h *Hub) TryKubectlIn(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), leastHope+time.Minute) // longer than what kubectl itself may wait
	defer cancel()
	cmd := h.On.Command(ctx, KubectlPath, append([]string{"--kubeconfig", h.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(append(os.Environ(), "HOME="+h.Dir), h.Env...)
	if err := cmd.Run(); err != nil {
		return out.String() + errOut.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String() + errOut.String(), nil
}

// Kubectl runs kubectl, which must succeed.
func (h *Hub) Kubectl(args ...string) string {
	h.t.Helper()
	out, err := h.TryKubectl(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// Apply applies a manifest.
func (h *Hub) Apply(manifest string) string {
	h.t.Helper()
	out, err := h.TryKubectlIn(manifest, "apply", "-f", "-")
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// Eventually waits until f is content. The time is how long to hope, no promise of speed.
func (h *Hub) Eventually(hope time.Duration, what string, f func() error) {
	h.t.Helper()
	Eventually(h.t, hope, what, f)
}

// Up starts `petrel up` on a machine and waits until its node is ready and it says that it is up: after a restart the stored Node is
// ready before the agent is there.
func Up(t *testing.T, on Machine, dir string, args ...string) *Hub {
	t.Helper()
	h := &Hub{t: t, On: on, Dir: dir, Kubeconfig: filepath.Join(dir, "admin.kubeconfig")}
	h.Process = Start(t, on, "up", append([]string{"up", "--data-dir", dir, "--node-name", "solo", "--bridge", "pte0", "--containerd", "private"}, args...)...)
	h.Eventually(leastHope, "petrel up says that it is up", func() error {
		if out := h.Out.String(); !strings.Contains(out, "Petrel is up.") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
	h.Ready("solo")
	return h
}

// Token makes a join token.
func (h *Hub) Token(args ...string) string {
	h.t.Helper()
	var out []byte
	h.Eventually(leastHope, "petrel token create", func() (err error) { // the hub answers a moment before it has described itself
		ctx, cancel := context.WithTimeout(context.Background(), leastHope)
		defer cancel()
		cmd := h.On.Command(ctx, Petrel, append([]string{"token", "create", "--kubeconfig", h.Kubeconfig}, args...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if out, err = cmd.Output(); err != nil {
			return fmt.Errorf("%w: %s", err, stderr.String())
		}
		return nil
	})
	return strings.TrimSpace(string(out))
}

// TokenID finds the one token with a description.
func (h *Hub) TokenID(t *testing.T, description string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), leastHope)
	defer cancel()
	out, err := h.On.Command(ctx, Petrel, "token", "list", "--kubeconfig", h.Kubeconfig).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, description) {
			return f[0]
		}
	}
	t.Fatalf("no token %q in\n%s", description, out)
	return ""
}

// Background starts kubectl.
func (h *Hub) Background(t *testing.T, args ...string) *Process {
	t.Helper()
	p := &Process{Cmd: h.On.Command(context.Background(), KubectlPath, append([]string{"--kubeconfig", h.Kubeconfig}, args...)...), Out: &LockedBuffer{}, Done: make(chan error, 1)}
	p.Cmd.Stdout, p.Cmd.Stderr = p.Out, p.Out
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.Done <- p.Cmd.Wait() }()
	t.Cleanup(func() { p.Stop(syscall.SIGKILL) })
	return p
}

// Join starts an agent on a machine and waits until its node is ready.
func (h *Hub) Join(on Machine, name string, args ...string) *Agent {
	h.t.Helper()
	return h.JoinWith(h.Token(), on, name, args...)
}

// JoinWith is Join with a token.
func (h *Hub) JoinWith(token string, on Machine, name string, args ...string) *Agent {
	h.t.Helper()
	a := &Agent{T: h.t, On: on, Name: name, Dir: h.t.TempDir(), Env: h.AgentEnv, images: h.Images}
	a.Args = append([]string{"--join", token}, args...)
	h.agents = append(h.agents, a.Dir)
	Sweep(a.T, on, a.Dir)
	a.bringImages()
	a.Start()
	h.Ready(name)
	return a
}

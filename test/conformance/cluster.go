package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// cluster is a hub and two agents, each on a simulated machine: a network namespace on one switch. The machines have a
// default route to nowhere: the suite expects one, and nothing leaves.
type cluster struct {
	petrel     string
	dir        string
	prefix     string // of the namespaces
	kubeconfig string
	running    []*exec.Cmd
	namespaces []string
}

const (
	subnet     = "10.99.7."
	hubAddress = subnet + "1"
	nodeCount  = 2
)

// startCluster returns the cluster when its nodes are ready. stop must be called also after an error.
func startCluster(ctx context.Context, petrel, dir, archive string) (*cluster, error) {
	c := &cluster{petrel: petrel, dir: dir, prefix: fmt.Sprintf("pcf%d-", os.Getpid())}
	if err := c.network(); err != nil {
		return c, err
	}
	hub := filepath.Join(dir, "hub")
	c.kubeconfig = filepath.Join(hub, "admin.kubeconfig")
	if err := c.start("hub", "hub", "--data-dir", hub, "--listen", hubAddress+":6443", "--advertise", hubAddress); err != nil {
		return c, err
	}
	if err := c.until(ctx, 30*time.Second, "the hub answers", func() error {
		_, err := c.output(ctx, "get", "nodes")
		return err
	}); err != nil {
		return c, err
	}
	if err := c.startRegistry(ctx, archive); err != nil {
		return c, err
	}
	for i := range nodeCount {
		name := fmt.Sprintf("n%d", i+1)
		data := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(data, "images"), 0o700); err != nil {
			return c, err
		}
		if err := os.Link(archive, filepath.Join(data, "images", "conformance.tar")); err != nil {
			if err := copyFile(archive, filepath.Join(data, "images", "conformance.tar")); err != nil {
				return c, err
			}
		}
		token, err := c.output(ctx, "token", "create")
		if err != nil {
			return c, err
		}
		if err := c.start(name, "agent", "--data-dir", data, "--node-name", name, "--bridge", "pcf0", "--containerd", "private",
			"--no-keep-pods", "--plain-http-registry", imageRegistry, "--join", strings.TrimSpace(token)); err != nil {
			return c, err
		}
	}
	return c, c.until(ctx, 5*time.Minute, "both nodes are ready, with the images", func() error {
		out, err := c.output(ctx, "get", "nodes", "--no-headers")
		if err == nil && strings.Count(out, " Ready ") != nodeCount {
			err = fmt.Errorf("nodes:\n%s", out)
		}
		return err
	})
}

func (c *cluster) network() error {
	sw := c.prefix + "sw"
	commands := [][]string{{"netns", "add", sw}, {"-n", sw, "link", "add", "br0", "type", "bridge"}, {"-n", sw, "link", "set", "br0", "up"}}
	c.namespaces = []string{sw}
	for i, name := range []string{"hub", "n1", "n2"} {
		ns, port := c.prefix+name, fmt.Sprintf("p%d", i+1)
		c.namespaces = append(c.namespaces, ns)
		commands = append(commands,
			[]string{"netns", "add", ns},
			[]string{"-n", sw, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns},
			[]string{"-n", sw, "link", "set", port, "master", "br0", "up"},
			[]string{"-n", ns, "link", "set", "lo", "up"},
			[]string{"-n", ns, "addr", "add", fmt.Sprintf("%s%d/24", subnet, i+1), "dev", "eth0"},
			[]string{"-n", ns, "link", "set", "eth0", "up"},
			[]string{"-n", ns, "route", "add", "default", "via", subnet + "254"})
	}
	for _, args := range commands {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// on makes a command that runs on the machine of a name.
func (c *cluster) on(ctx context.Context, machine, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + c.prefix + machine, name}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	return cmd
}

// start starts petrel on the machine of a name; its output goes to a log file.
func (c *cluster) start(machine string, args ...string) error {
	return c.startCommand(machine, func() *exec.Cmd { return c.on(context.Background(), machine, c.petrel, args...) })
}

// startCommand starts a program until the cluster stops; its output goes to the log file of that name.
func (c *cluster) startCommand(name string, command func() *exec.Cmd) error {
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := command()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	c.running = append(c.running, cmd)
	return nil
}

// output runs petrel as a client on the hub's machine.
func (c *cluster) output(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := c.on(ctx, "hub", c.petrel, args...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("petrel %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out), nil
}

func (c *cluster) until(ctx context.Context, limit time.Duration, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %s: %w", limit, what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// stop ends all of it, the agents first: they take their containers along.
func (c *cluster) stop() {
	if c == nil {
		return
	}
	for i := len(c.running) - 1; i >= 0; i-- {
		cmd := c.running[i]
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-done
		}
	}
	for _, ns := range c.namespaces {
		_ = exec.Command("ip", "netns", "del", ns).Run() // it may not have been made
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

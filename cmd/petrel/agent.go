//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"

	"petrel.dev/petrel/edgeagent"
	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/nodename"
	"petrel.dev/petrel/internal/sdnotify"
)

// nodeFlags are what `petrel agent` and `petrel up` share.
type nodeFlags struct {
	NodeName   string            `help:"Name of the node, or a pattern with {serial}, {mac}, {machine-id}, {hostname} or {model} in it. Default: as the token says, otherwise the host name." placeholder:"NAME"`
	NodeIP     string            `name:"node-ip" help:"Address that other nodes reach this one by. Default: that of the default route." placeholder:"ADDRESS"`
	Label      map[string]string `help:"Label of the node: KEY=VALUE." placeholder:"KEY=VALUE" mapsep:","`
	Taint      []string          `help:"Taint of the node when it joins: KEY[=VALUE]:EFFECT." placeholder:"KEY=VALUE:EFFECT"`
	Containerd string            `help:"Socket of a containerd to use, or private. Default: a private one; where none travels inside this binary, the system's when it runs." placeholder:"ADDRESS"`
	PlainHTTP  []string          `name:"plain-http-registry" help:"Registry that speaks HTTP without TLS: HOST[:PORT]. Those on localhost are taken to anyway." placeholder:"HOST"`
	DiskFloor  string            `help:"Free space that the node defends on its disk, by evicting pods if it must: a percentage or a quantity. Default: 10%, from 128Mi to 8Gi." placeholder:"SIZE"`
	ImageHigh  int               `name:"image-gc-high" help:"Part of the disk in use, in percent, from which unused images are removed." default:"85" placeholder:"PERCENT"`
	ImageLow   int               `name:"image-gc-low" help:"Part of the disk in use, in percent, down to which they are." default:"80" placeholder:"PERCENT"`
	PodPids    int64             `name:"pod-pids-limit" default:"4096" help:"Processes and threads that a pod may have; -1: no limit." placeholder:"N"`
	CacheKey   string            `name:"cache-key-file" type:"path" help:"File with the key that encrypts what the hub has sent, Secrets among it, on this node's disk; it should lie elsewhere. Without it that lies there in clear." placeholder:"FILE"`
	Bridge     string            `help:"Name of the pods' network bridge. Default: petrel0." placeholder:"NAME"`
}

// bridgeName is what the kernel takes, less the three characters that names made from it add. Empty is the default.
var bridgeName = regexp.MustCompile(`^[A-Za-z0-9_-]{0,12}$`)

func (f nodeFlags) config(dataDir string, log *slog.Logger) (edgeagent.Config, error) {
	cfg := edgeagent.Config{
		DataDir: dataDir, NodeName: f.NodeName, Labels: f.Label, ContainerdAddress: f.Containerd,
		PlainHTTPRegistries: f.PlainHTTP, Bridge: f.Bridge, CacheKeyFile: f.CacheKey, Log: log,
	}
	if f.Containerd == "private" {
		cfg.ContainerdAddress, cfg.PrivateContainerd = "", true
	}
	if f.NodeIP != "" {
		ip, err := netip.ParseAddr(f.NodeIP)
		if err != nil {
			return cfg, fmt.Errorf("--node-ip %q is not an IP address", f.NodeIP)
		}
		cfg.NodeIP = ip
	}
	if name := nodename.Pattern(f.NodeName); name != "" {
		if err := name.Check(); err != nil {
			return cfg, fmt.Errorf("--node-name: %w", err)
		}
	}
	if !bridgeName.MatchString(f.Bridge) {
		return cfg, fmt.Errorf("--bridge %q is no name of an interface: 1 to 12 letters, digits, - or _", f.Bridge)
	}
	cfg.Disk = storage.Default()
	cfg.Disk.High, cfg.Disk.Low = f.ImageHigh, f.ImageLow
	if f.DiskFloor != "" {
		floor, err := storage.ParseAmount(f.DiskFloor)
		if err != nil {
			return cfg, fmt.Errorf("--disk-floor: %w", err)
		}
		cfg.Disk.Floor, cfg.Disk.FloorMost = floor, 0
	}
	if err := cfg.Disk.Check(); err != nil {
		return cfg, fmt.Errorf("--image-gc-high, --image-gc-low: %w", err)
	}
	if cfg.PodPidsLimit = f.PodPids; f.PodPids == 0 || f.PodPids < -1 {
		return cfg, fmt.Errorf("--pod-pids-limit %d: a pod needs at least one process; give a number above 0, or -1 for no limit", f.PodPids)
	}
	for _, text := range f.Taint {
		taint, err := cli.ParseTaint(text)
		if err != nil {
			return cfg, fmt.Errorf("--taint %s: %w", text, err)
		}
		cfg.Taints = append(cfg.Taints, taint)
	}
	return cfg, nil
}

// agentFlags are the settings of an agent.
type agentFlags struct {
	DataDir  string `default:"/var/lib/petrel" type:"path" help:"Directory of all state; made when missing." placeholder:"DIR"`
	Join     string `xor:"join" help:"What petrel token create printed on the hub; - reads it from standard input. Needed once: afterwards this machine knows its hub." placeholder:"TOKEN"`
	JoinFile string `xor:"join" type:"path" help:"File that holds the token." placeholder:"FILE"`
	KeepPods bool   `default:"true" negatable:"" help:"Leave pods running when the agent ends, as an update of it needs."`
	nodeFlags
	logFlags
}

type agentCmd struct {
	agentFlags
	StopPods bool `help:"End the pods that an agent has left running here, with their network and containerd, and run none."`
}

func (c *agentCmd) Run(ctx context.Context, log *slog.Logger) error {
	cfg, err := c.config(c.DataDir, log)
	if err != nil {
		return err
	}
	cfg.StopPodsOnExit = !c.KeepPods
	if rest, ok := withoutToken(os.Args, c.Join); ok {
		if err := hideToken(rest, c.Join); err != nil {
			log.Warn("the join token stays in the process list, where every local user can read it; --join-file and --join - keep it out", "error", err)
		}
	}
	_ = os.Unsetenv(joinVariable) // children have no use for it
	if err := needRoot("an agent runs containers"); err != nil {
		return err
	}
	if c.StopPods {
		return edgeagent.StopPods(ctx, cfg) // for which no token is needed, nor the file of one
	}
	if cfg.JoinToken, err = c.token(os.Stdin, log); err != nil {
		return err
	}
	cfg.Notify = sdnotify.FromEnv()
	cfg.Joined = func() { forgetToken(cfg.JoinToken, log) }
	return runAgent(ctx, cfg)
}

func runAgent(ctx context.Context, cfg edgeagent.Config) error {
	a, err := edgeagent.New(cfg)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

func needRoot(why string) error {
	if os.Geteuid() != 0 {
		return errors.New(why + ", which needs root: use sudo")
	}
	return nil
}

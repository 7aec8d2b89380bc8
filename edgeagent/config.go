package edgeagent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/edgeagent/identity"
	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/nodename"
	"petrel.dev/petrel/internal/sdnotify"
)

// Config of an Agent. Only DataDir and Log are required on a device that has joined before.
type Config struct {
	// DataDir is DATA; the agent's own part is DATA/agent.
	DataDir string
	// RunDir holds what a reboot wipes; empty: one below /run/petrel that belongs to DataDir.
	RunDir string
	// NodeName is the name that the device wants when it joins, or a pattern (see internal/nodename); empty: the pattern of its token,
	// otherwise its host name. New makes a name of it.
	NodeName string
	// NodeIP is the node's address, if it shall not be found out.
	NodeIP netip.Addr
	// JoinToken is what `petrel token create` printed; needed once.
	JoinToken string
	// Joined is called each time that the hub has welcomed this machine and the disk has it: JoinToken is not needed from then on.
	// It must not wait for long. Nil: nothing is called.
	Joined func()
	Labels map[string]string
	Taints []corev1.Taint
	// ContainerdAddress is the socket of a containerd to use; empty: the system's if it answers, else a private one.
	ContainerdAddress string
	// ContainerdNamespace is where this agent's containers are; empty: "petrel".
	ContainerdNamespace string
	// PrivateContainerd says that the system's containerd is never used.
	PrivateContainerd bool
	// PlainHTTPRegistries are registries that speak HTTP. Those on localhost are taken to.
	PlainHTTPRegistries []string
	// PodPidsLimit is how many processes and threads a pod may have; 0: DefaultPodPidsLimit, negative: no limit.
	PodPidsLimit int64
	// Bridge is the name of the pod bridge; empty: podnet's default.
	Bridge string
	// CacheKeyFile holds the keys that DATA/agent/cache is encrypted with; see internal/seal. Empty: it is in clear.
	CacheKeyFile string
	// StopPodsOnExit ends all pods, and a private containerd, when Run ends. Otherwise both go on.
	StopPodsOnExit bool
	// Disk is how much of the node's disk stays free; the zero value stands for storage.Default.
	Disk storage.Policy
	// Notify reports to systemd; nil: nothing is reported.
	Notify *sdnotify.Notifier
	Log    *slog.Logger

	offline  bool          // without a link, for tests
	imageAge time.Duration // how long an image must be unused to be collected; storage.MinAge but in tests
}

// DefaultPodPidsLimit is far above what a program needs, and far below what the kernel of a small board has for all.
const DefaultPodPidsLimit = 4096

// check fills in what is left out and refuses what cannot be.
func (c *Config) check() error {
	if c.DataDir == "" || c.Log == nil {
		return fmt.Errorf("agent: no data directory, or no log")
	}
	if err := c.chooseName(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if c.Disk == (storage.Policy{}) {
		c.Disk = storage.Default()
	}
	if c.imageAge == 0 {
		c.imageAge = storage.MinAge
	}
	if err := c.Disk.Check(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	switch {
	case c.PodPidsLimit == 0:
		c.PodPidsLimit = DefaultPodPidsLimit
	case c.PodPidsLimit < 0:
		c.PodPidsLimit = 0
	}
	for k, v := range c.Labels {
		if problems := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(problems) > 0 {
			return fmt.Errorf("agent: label %s=%s: %s", k, v, problems[0])
		}
	}
	return nil
}

// chooseName makes NodeName a name. A device that has joined keeps the name that the hub knows it by when what its pattern names is
// not there today, such as a network interface.
func (c *Config) chooseName() error {
	joined, names := identity.Naming(filepath.Join(c.DataDir, "agent"), c.JoinToken)
	pattern := nodename.Pattern(c.NodeName)
	if pattern == "" {
		pattern = names
	}
	if pattern == "" {
		h, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the machine's host name: %w; give one with --node-name", err)
		}
		pattern = nodename.Pattern(strings.ToLower(h))
	}
	if pattern.IsPlain() {
		c.NodeName = string(pattern)
		if problems := validation.IsDNS1123Subdomain(c.NodeName); len(problems) > 0 {
			return fmt.Errorf("node name %q: %s; give another with --node-name", c.NodeName, problems[0])
		}
		return nil
	}
	name, err := pattern.Name(os.DirFS("/"))
	if err != nil && joined == "" {
		return fmt.Errorf("%w; or give another with --node-name", err)
	}
	if err != nil {
		name = joined
	}
	c.NodeName = name
	return nil
}

package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/auth/oidc"
	"petrel.dev/petrel/hub/backup"
	"petrel.dev/petrel/internal/sdnotify"
)

// Config is what an operator may choose. The zero value of a field means its default; New fills it in.
type Config struct {
	// DataDir holds the hub's state; it is made when it does not exist.
	DataDir string
	// Listen is the one port, as host:port; an empty host means all addresses.
	Listen string
	// Advertise are the names or addresses under which clients and agents reach this hub, best first. None: this
	// machine's own addresses.
	Advertise []string
	// Broker is the URL of an external MQTT broker (mqtt://, mqtts://). Empty: the one inside the hub.
	Broker string
	// ClusterCIDR is cut into one range for the pods of each node. ServiceCIDR holds the addresses of Services.
	ClusterCIDR, ServiceCIDR netip.Prefix
	// Domain is the DNS domain of the cluster.
	Domain string
	// StoreLimit is how many bytes all objects may take in memory; MaxPods how many pods there may be, MaxNodes how many nodes. 0:
	// their defaults.
	StoreLimit        int64
	MaxPods, MaxNodes int
	// Backups is how many nightly backups of the store are kept; 0 means DefaultBackups, less than 0 that none are made.
	Backups int
	// Archives are backups of the whole hub, keys included, that it writes on a schedule; none while its Dir is empty. Its State and Log are
	// the hub's to set.
	Archives backup.Schedule
	// EncryptionKeyFile holds the keys that Secrets are encrypted with in the store; see internal/seal. Empty: they are in clear.
	EncryptionKeyFile string
	// EncryptSecrets encrypts Secrets with a key in the data directory, which is made when it does not exist, where no
	// EncryptionKeyFile is named. It protects backups and copies of the store, not the disk with both.
	EncryptSecrets bool
	// Salvage makes New set a damaged store aside and take over what can be read of it.
	Salvage bool
	// Audit says what of requests is recorded; the zero value: nothing.
	Audit audit.Config
	// OIDC is the issuer whose ID tokens are accepted; the zero value: none.
	OIDC oidc.Config
	// Notify reports to systemd; nil: nothing is reported.
	Notify *sdnotify.Notifier
	Log    *slog.Logger
}

// check fills in defaults, and refuses a wrong setting with an error that names its flag.
func (c *Config) check() error {
	if c.StoreLimit == 0 {
		c.StoreLimit = DefaultStoreLimit
	}
	if c.StoreLimit < 16<<20 {
		return fmt.Errorf("--store-limit of %d bytes: 16Mi is the least", c.StoreLimit)
	}
	if c.MaxPods == 0 {
		c.MaxPods = DefaultMaxPods
	}
	if c.MaxPods < 0 {
		return fmt.Errorf("--max-pods %d is less than 1", c.MaxPods)
	}
	if c.MaxNodes == 0 {
		c.MaxNodes = DefaultMaxNodes
	}
	if c.MaxNodes < 0 {
		return fmt.Errorf("--max-nodes %d is less than 1", c.MaxNodes)
	}
	if c.Backups == 0 {
		c.Backups = DefaultBackups
	}
	if c.DataDir == "" {
		return errors.New("--data-dir is empty")
	}
	if c.Archives.Dir != "" {
		if err := c.Archives.Check(); err != nil {
			return fmt.Errorf("--backup-schedule, --backup-keep: %w", err)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("--listen %q is not HOST:PORT or :PORT", c.Listen)
	}
	for _, a := range c.Advertise {
		if strings.ContainsAny(a, "/ ") {
			return fmt.Errorf("--advertise %q is not a host name or an address", a)
		}
	}
	for flag, p := range map[string]netip.Prefix{"--cluster-cidr": c.ClusterCIDR, "--service-cidr": c.ServiceCIDR} {
		if !p.IsValid() || p.Masked() != p {
			return fmt.Errorf("%s %q is not a network such as 10.42.0.0/16", flag, p)
		}
		if !p.Addr().Is4() {
			return fmt.Errorf("%s %q: only IPv4 networks are supported", flag, p)
		}
	}
	if c.ClusterCIDR.Bits() > 24 {
		return fmt.Errorf("--cluster-cidr %s is smaller than the /24 that one node gets", c.ClusterCIDR)
	}
	if c.ServiceCIDR.Bits() > 27 {
		return fmt.Errorf("--service-cidr %s is too small: a /27 is the least", c.ServiceCIDR)
	}
	if c.ClusterCIDR.Overlaps(c.ServiceCIDR) {
		return fmt.Errorf("--cluster-cidr %s and --service-cidr %s overlap", c.ClusterCIDR, c.ServiceCIDR)
	}
	return nil
}

// nth returns the n-th address of a network.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// apiAddr returns the address of the Service default/kubernetes, the first of the service network; dnsAddr that of the DNS.
func (c *Config) apiAddr() netip.Addr { return nth(c.ServiceCIDR, 1) }
func (c *Config) dnsAddr() netip.Addr { return nth(c.ServiceCIDR, 10) }

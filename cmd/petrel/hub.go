//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/hub"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/backup"
	"petrel.dev/petrel/internal/sdnotify"
)

// hubFlags are what `petrel hub` and `petrel up` share.
type hubFlags struct {
	DataDir        string   `default:"/var/lib/petrel" type:"path" help:"Directory of all state; made when missing." placeholder:"DIR"`
	Listen         string   `default:":6443" help:"Address and port for API and agents alike." placeholder:"[HOST]:PORT"`
	Advertise      []string `help:"Names or addresses under which others reach this machine, best first. Default: its own addresses." placeholder:"HOST"`
	Broker         string   `help:"URL of an external MQTT broker that hub and agents meet on (mqtt://, mqtts://). Default: the hub's own." placeholder:"URL"`
	ClusterCIDR    string   `name:"cluster-cidr" default:"10.42.0.0/16" help:"Network of all pods." placeholder:"CIDR"`
	ServiceCIDR    string   `name:"service-cidr" default:"10.43.0.0/16" help:"Network of all Services." placeholder:"CIDR"`
	StoreLimit     string   `default:"256Mi" help:"What all objects of the API may take in memory; beyond it only deletions and changes that make objects smaller are taken." placeholder:"SIZE"`
	MaxPods        int      `default:"20000" help:"How many pods there may be; creations beyond are refused." placeholder:"N"`
	MaxNodes       int      `default:"2000" help:"How many nodes there may be; further devices are refused." placeholder:"N"`
	Backups        int      `default:"3" help:"How many nightly backups of the store are kept in DIR/backup; 0 makes none." placeholder:"N"`
	BackupTo       string   `type:"path" help:"Directory, best on another disk, that backups of the whole hub are written to on a schedule, for petrel restore. They have the hub's keys in them." placeholder:"DIR"`
	BackupSchedule string   `default:"0 4 * * *" help:"When they are written, in the form of cron, local time; only when something has changed." placeholder:"CRON"`
	BackupKeep     int      `default:"7" help:"How many of them are kept." placeholder:"N"`
	backupSeal
	EncryptionKeyFile string `type:"path" help:"File with the key that encrypts Secrets in the store and its backups; without it they lie there in clear. A missing file is an error that says how to make one." placeholder:"FILE"`
	EncryptSecrets    bool   `help:"Encrypt Secrets with a key in the data directory, which is made when it does not exist: backups and copies of the store are of no use without it. A key elsewhere (--encryption-key-file) protects the disk too."`
	AuditPolicyFile   string `type:"path" help:"File with an audit.k8s.io/v1 Policy: what of requests is recorded. Without it nothing is." placeholder:"FILE"`
	AuditLogPath      string `help:"File that requests are recorded in, a line of JSON for each event; - is standard output." placeholder:"FILE"`
	AuditLogMaxsize   int    `default:"100" help:"Size in MiB at which that file is replaced by a new one." placeholder:"MIB"`
	AuditLogMaxbackup int    `default:"10" help:"How many replaced files are kept; 0 keeps all." placeholder:"N"`
	AuditLogMaxage    int    `default:"0" help:"Days after which replaced files are removed; 0 removes none for its age." placeholder:"DAYS"`
	oidcFlags
	Salvage       bool   `help:"If the store is damaged, set it aside and go on with what can be read of it; a report beside it names the rest."`
	ClusterDomain string `default:"cluster.local" help:"DNS domain of the cluster." placeholder:"DOMAIN"`
}

func (f hubFlags) config(log *slog.Logger) (hub.Config, error) {
	cfg := hub.Config{
		DataDir: f.DataDir, Listen: f.Listen, Advertise: f.Advertise, Broker: f.Broker, Domain: f.ClusterDomain, MaxPods: f.MaxPods, MaxNodes: f.MaxNodes, Backups: f.Backups, EncryptionKeyFile: f.EncryptionKeyFile, EncryptSecrets: f.EncryptSecrets, Salvage: f.Salvage, Log: log,
	}
	limit, err := resource.ParseQuantity(f.StoreLimit)
	if err != nil || limit.Value() <= 0 {
		return cfg, fmt.Errorf("--store-limit %q is not a size such as 256Mi", f.StoreLimit)
	}
	cfg.StoreLimit = limit.Value()
	for flag, n := range map[string]int{"--max-pods": f.MaxPods - 1, "--max-nodes": f.MaxNodes - 1, "--audit-log-maxsize": f.AuditLogMaxsize - 1, "--audit-log-maxbackup": f.AuditLogMaxbackup, "--audit-log-maxage": f.AuditLogMaxage} {
		if n < 0 {
			return cfg, fmt.Errorf("%s is too small", flag)
		}
	}
	cfg.Audit = audit.Config{
		PolicyFile: f.AuditPolicyFile, Path: f.AuditLogPath, MaxSize: int64(f.AuditLogMaxsize) << 20, MaxBackups: f.AuditLogMaxbackup, MaxAge: f.AuditLogMaxage,
	}
	if cfg.OIDC, err = f.oidc(); err != nil {
		return cfg, err
	}
	if f.BackupTo != "" {
		recipients, err := f.recipients()
		if err != nil {
			return cfg, err
		}
		cfg.Archives = backup.Schedule{Dir: f.BackupTo, Cron: f.BackupSchedule, Keep: f.BackupKeep, Recipients: recipients}
	}
	if f.Backups <= 0 {
		cfg.Backups = -1
	}
	for _, n := range []struct {
		flag, text string
		to         *netip.Prefix
	}{{"--cluster-cidr", f.ClusterCIDR, &cfg.ClusterCIDR}, {"--service-cidr", f.ServiceCIDR, &cfg.ServiceCIDR}} {
		p, err := netip.ParsePrefix(n.text)
		if err != nil {
			return cfg, fmt.Errorf("%s %q is not a network such as 10.42.0.0/16", n.flag, n.text)
		}
		*n.to = p
	}
	if bad := validation.IsDNS1123Subdomain(f.ClusterDomain); len(bad) > 0 {
		return cfg, fmt.Errorf("--cluster-domain %q is no DNS domain: %s", f.ClusterDomain, bad[0])
	}
	// An empty port would be any free one, and another at each start.
	if _, port, err := net.SplitHostPort(f.Listen); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return cfg, fmt.Errorf("--listen %q has no port from 1 to 65535", f.Listen)
		}
	}
	return cfg, nil
}

type hubCmd struct {
	hubFlags
	logFlags
}

func (c *hubCmd) Run(ctx context.Context, log *slog.Logger) error {
	cfg, err := c.config(log)
	if err != nil {
		return err
	}
	cfg.Notify = sdnotify.FromEnv()
	h, err := hub.New(ctx, cfg)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run as the user whom the data directory belongs to (mostly root: use sudo), or choose another --data-dir", err)
	}
	if err != nil {
		return err
	}
	return h.Run(ctx)
}

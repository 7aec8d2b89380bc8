package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/cli"
)

// adminCmd is about who may do everything. It works on the files of the hub's machine, so that nobody who has only a
// certificate can use it.
type adminCmd struct {
	List   adminList   `cmd:"" aliases:"ls" help:"List the administrators' certificates, the revoked ones too."`
	Issue  adminIssue  `cmd:"" help:"Make a certificate for a further administrator and print the kubeconfig with it."`
	Revoke adminRevoke `cmd:"" help:"Refuse certificates from now on; what they have open ends. The hub need not be restarted."`
	Rotate adminRotate `cmd:"" help:"Revoke the certificate in admin.kubeconfig, and have a new one with a new key made there."`

	RotateTokenKey adminRotateTokenKey `cmd:"" help:"Sign ServiceAccount tokens with a new key; those that exist stay good until they expire. The hub does so itself every 90 days."`
}

type pkiDir struct {
	DataDir string `default:"/var/lib/petrel" type:"path" help:"Directory of the hub's state." placeholder:"DIR"`
}

func (d pkiDir) admins() (*auth.Admins, error) {
	return auth.OpenAdmins(filepath.Join(d.DataDir, "pki"))
}

func (d pkiDir) kubeconfig() string { return filepath.Join(d.DataDir, "admin.kubeconfig") }

type adminList struct{ pkiDir }

func (c *adminList) Run(s *cli.Streams) error {
	admins, err := c.admins()
	if err != nil {
		return err
	}
	list, err := admins.List()
	if err != nil {
		return err
	}
	now := time.Now()
	out := tabwriter.NewWriter(s.Out, 6, 4, 3, ' ', 0)
	fmt.Fprintln(out, "NAME\tSTATE\tEXPIRES IN\tSERIAL")
	for _, a := range list {
		state, expires, serial := "accepted", "-", "-"
		switch {
		case !a.Revoked.IsZero():
			state = "revoked " + duration.HumanDuration(now.Sub(a.Revoked)) + " ago"
		case now.After(a.Expires):
			state = "expired"
		default:
			expires = duration.HumanDuration(a.Expires.Sub(now))
		}
		if a.Serial != "" {
			serial = a.Serial
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", a.Name, state, expires, serial)
	}
	return out.Flush()
}

type adminIssue struct {
	pkiDir
	Name   string        `arg:"" help:"Whose it is; the name in the hub's log and quotas."`
	Server string        `help:"Where the hub is reached, as https://HOST:PORT. Default: what it is advertised as, or this machine's address." placeholder:"URL"`
	TTL    time.Duration `name:"ttl" default:"8760h" help:"How long it is valid." placeholder:"DURATION"`
}

func (c *adminIssue) Run(s *cli.Streams) error {
	admins, err := c.admins()
	if err != nil {
		return err
	}
	server := c.Server
	if server == "" {
		if server, err = serverFor(c.kubeconfig()); err != nil {
			return fmt.Errorf("%w; give --server", err)
		}
	}
	text, err := admins.Issue(c.Name, server, c.TTL)
	if err != nil {
		return err
	}
	_, err = s.Out.Write(text)
	return err
}

type adminRevoke struct {
	pkiDir
	Names []string `arg:"" name:"name" help:"Administrators, or serial numbers of certificates."`
}

func (c *adminRevoke) Run(ctx context.Context, s *cli.Streams) error {
	admins, err := c.admins()
	if err != nil {
		return err
	}
	for _, n := range c.Names {
		if err := c.revoke(ctx, s, admins, n); err != nil {
			return err
		}
	}
	return nil
}

type adminRotate struct{ pkiDir }

func (c *adminRotate) Run(ctx context.Context, s *cli.Streams) error {
	admins, err := c.admins()
	if err != nil {
		return err
	}
	return c.revoke(ctx, s, admins, auth.AdminName)
}

// hubTime is how long a running hub gets to make the new key.
const hubTime = 5 * time.Second

// revoke revokes one administrator or certificate. For the hub's own it waits until the running hub has written the new
// kubeconfig; a hub that does not run makes it when it starts.
func (d pkiDir) revoke(ctx context.Context, s *cli.Streams, admins *auth.Admins, nameOrSerial string) error {
	before, err := os.ReadFile(d.kubeconfig())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name, err := admins.Revoke(nameOrSerial)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "%s revoked\n", nameOrSerial)
	if name != auth.AdminName {
		return nil
	}
	for begin := time.Now(); time.Since(begin) < hubTime; {
		if now, err := os.ReadFile(d.kubeconfig()); err == nil && !bytes.Equal(now, before) {
			fmt.Fprintf(s.Out, "%s has a new certificate\n", d.kubeconfig())
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	fmt.Fprintf(s.Err, "The hub does not run here: when it starts it writes a new certificate to %s\n", d.kubeconfig())
	return nil
}

type adminRotateTokenKey struct{ pkiDir }

func (c *adminRotateTokenKey) Run(s *cli.Streams) error {
	admins, err := c.admins()
	if err != nil {
		return err
	}
	if err := admins.RotateTokenKey(); err != nil {
		return err
	}
	fmt.Fprintln(s.Out, "ServiceAccount tokens are signed with a new key")
	return nil
}

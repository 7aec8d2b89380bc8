//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/seal"
)

// secretsCmd is about how Secrets lie on the hub's disk.
type secretsCmd struct {
	RotateKey secretsRotateKey `cmd:"" help:"Encrypt Secrets with a new key, while the hub runs. The older key leaves the key file when no backup of before is left."`
}

type secretsRotateKey struct {
	pkiDir
	EncryptionKeyFile string `type:"path" help:"The key file of the hub. Default: secrets.key in the data directory." placeholder:"FILE"`
}

func (c *secretsRotateKey) Run(ctx context.Context, s *cli.Streams) error {
	file := cmp.Or(c.EncryptionKeyFile, filepath.Join(c.DataDir, "secrets.key"))
	id, err := seal.AddKey(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "The key %s is the first of %s\n", id, file)
	fmt.Fprintln(s.Err, "Copies of the key file, and backups that are kept elsewhere: keep both of before together, and copy the key file of now.")
	for begin := time.Now(); time.Since(begin) < hubTime; {
		if _, done, err := seal.SealedSince(file); err == nil && done {
			fmt.Fprintln(s.Out, "All Secrets are encrypted with it")
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	fmt.Fprintln(s.Err, "The hub does not run here, or is still at it: it encrypts all Secrets with the new key, and its log says when it has")
	return nil
}

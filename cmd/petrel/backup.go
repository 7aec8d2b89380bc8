//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"petrel.dev/petrel/hub"
	"petrel.dev/petrel/hub/backup"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/progress"
)

// backupSeal is how backups are encrypted; not at all when both are empty.
type backupSeal struct {
	BackupRecipient      []string `help:"Encrypt backups for this public key of age, such as age1… that age-keygen prints. Repeatable." placeholder:"KEY"`
	BackupPassphraseFile string   `type:"path" help:"Encrypt backups with the passphrase in the first line of this file." placeholder:"FILE"`
}

func (b backupSeal) recipients() ([]age.Recipient, error) {
	r, err := backup.Recipients(b.BackupRecipient, b.BackupPassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("--backup-recipient, --backup-passphrase-file: %w", err)
	}
	return r, nil
}

type backupCmd struct {
	pkiDir
	Output         string   `short:"o" type:"path" help:"File to write. Default: petrel-TIME.tar.zst here." placeholder:"FILE"`
	Recipient      []string `short:"r" help:"Encrypt for this public key of age, such as age1… that age-keygen prints. Repeatable." placeholder:"KEY"`
	PassphraseFile string   `type:"path" help:"Encrypt with the passphrase in the first line of this file." placeholder:"FILE"`
}

func (c *backupCmd) Run(ctx context.Context, s *cli.Streams, log *slog.Logger) error {
	recipients, err := backup.Recipients(c.Recipient, c.PassphraseFile)
	if err != nil {
		return err
	}
	if err := c.hasHub(); err != nil {
		return err
	}
	path := c.Output
	if path == "" {
		path = "petrel-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.zst"
		if len(recipients) > 0 {
			path += ".age"
		}
	}
	source := hub.BackupSource(c.DataDir, log)
	bar := progress.Start(s.Err, "backing up", 0, progress.Bytes)
	source.Progress = bar.Set
	m, err := source.Write(ctx, path, recipients...)
	bar.End()
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "%s: %.1f MiB, the hub at revision %d\n", path, float64(fi.Size())/(1<<20), m.Revision)
	if len(recipients) == 0 {
		fmt.Fprintln(s.Err, "It is not encrypted, and has the hub's keys in it: who has this file is administrator of the cluster. Encrypt with --recipient or --passphrase-file.")
	}
	for _, f := range m.Files {
		if f.Name == "secrets.key" {
			return nil
		}
	}
	fmt.Fprintln(s.Err, "If the hub encrypts Secrets with --encryption-key-file, that file is not in it: keep a copy of both.")
	return nil
}

// hasHub returns why the data directory is no hub's.
func (d pkiDir) hasHub() error {
	_, err := os.Stat(filepath.Join(d.DataDir, "hub.db"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is no data directory of a hub; on the hub's machine, give the hub's --data-dir", d.DataDir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run as the user whom the data directory belongs to (mostly root: use sudo)", err)
	}
	return err
}

type restoreCmd struct {
	pkiDir
	File           string `arg:"" type:"path" help:"What petrel backup has written, or a nightly backup of the store in the hub's own data directory."`
	IdentityFile   string `short:"i" type:"path" help:"Secret key of age that decrypts the file." placeholder:"FILE"`
	PassphraseFile string `type:"path" help:"File with the passphrase in its first line." placeholder:"FILE"`
	Replace        bool   `help:"Set a store and keys that are there aside, as NAME.replaced…; without it they are an error."`
}

func (c *restoreCmd) Run(ctx context.Context, s *cli.Streams) error {
	ids, err := backup.Identities(c.IdentityFile, c.PassphraseFile)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	aside := ""
	bar := progress.Start(s.Err, "restoring", sizeOf(f), progress.Bytes)
	m, err := backup.Target{DataDir: c.DataDir, Identities: ids, Replace: c.Replace, Place: func(ctx context.Context, path string) (err error) {
		aside, err = hub.PlaceStore(ctx, c.DataDir, path, c.Replace)
		return err
	}}.Restore(ctx, bar.Reader(f))
	bar.End()
	if err != nil {
		return err
	}
	if aside != "" {
		fmt.Fprintln(s.Err, "The store that was there is now", aside)
	}
	if m.Format == 0 {
		fmt.Fprintf(s.Out, "%s has the store of %s\n", c.DataDir, c.File)
	} else {
		fmt.Fprintf(s.Out, "%s has the hub as it was at %s, revision %d\n", c.DataDir, m.Created.Local().Format(time.RFC1123), m.Revision)
	}
	start := "petrel hub"
	if c.DataDir != defaultDataDir {
		start += " --data-dir " + c.DataDir
	}
	fmt.Fprintln(s.Err, "Start it: "+start+". Nodes come back by themselves where they know its address; docs/backup.md says how a hub moves to another one.")
	return nil
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"petrel.dev/petrel/edgeagent"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/progress"
	"petrel.dev/petrel/internal/hello"
)

// imageCmd works on the images of this machine's node.
type imageCmd struct {
	Import     imageImport `cmd:"" help:"Import archives: OCI layouts, or what docker save writes."`
	List       imageList   `cmd:"" aliases:"ls" help:"List the images."`
	Prune      imagePrune  `cmd:"" help:"Remove images that no container uses. Imported ones stay."`
	BuildHello buildHello  `cmd:"" hidden:"" help:"Write the demonstration image to a file."`
}

// nodeImages says which node's images.
type nodeImages struct {
	DataDir    string `default:"/var/lib/petrel" type:"path" help:"Directory of the agent's state." placeholder:"DIR"`
	Containerd string `help:"Socket of the containerd that the agent uses, or private." placeholder:"ADDRESS"`
}

func (n nodeImages) open(ctx context.Context) (*edgeagent.Images, error) {
	if err := needRoot("images are containerd's"); err != nil {
		return nil, err
	}
	return edgeagent.OpenImages(ctx, n.DataDir, n.Containerd)
}

// openExisting is open where an agent has kept images before: looking at them makes no data directory.
func (n nodeImages) openExisting(ctx context.Context) (*edgeagent.Images, error) {
	if err := needRoot("images are containerd's"); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(n.DataDir, "agent")); n.Containerd == "" && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no agent has run here with --data-dir %s; give the agent's own --data-dir", n.DataDir)
	}
	return n.open(ctx)
}

type imageImport struct {
	nodeImages
	Files []string `arg:"" optional:"" help:"Archives; - is standard input."`
	Hello string   `help:"Make the image of examples/hello.yaml from this very binary, under this name." placeholder:"NAME"`
}

func (c *imageImport) Run(ctx context.Context, s *cli.Streams) (err error) {
	if len(c.Files) == 0 && c.Hello == "" {
		return errors.New("nothing to import: name an archive, or - for standard input")
	}
	images, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	take := func(from string, r io.Reader) error {
		bar := progress.Start(s.Err, "importing "+filepath.Base(from), sizeOf(r), progress.Bytes)
		names, err := images.Import(ctx, bar.Reader(r))
		bar.End()
		for _, n := range names {
			fmt.Fprintf(s.Out, "%s imported\n", n)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		return nil
	}
	for _, name := range c.Files {
		if name == "-" {
			if err := take("standard input", s.In); err != nil {
				return err
			}
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = take(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	if c.Hello == "" {
		return nil
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeHello(w, c.Hello)) }()
	defer r.Close()
	return take(c.Hello, r)
}

// sizeOf returns how many bytes a file has; 0 of what is no file, whose end is not known.
func sizeOf(r io.Reader) int64 {
	f, ok := r.(*os.File)
	if !ok {
		return 0
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return 0
	}
	return fi.Size()
}

func writeHello(w io.Writer, ref string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return hello.WriteImage(w, self, ref)
}

type imageList struct{ nodeImages }

func (c *imageList) Run(ctx context.Context, s *cli.Streams) (err error) {
	images, err := c.openExisting(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	list, err := images.List(ctx)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(s.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(out, "IMAGE\tDIGEST\tSIZE\tPINNED")
	for _, i := range list {
		fmt.Fprintf(out, "%s\t%.19s\t%s\t%v\n", i.Name, i.Digest, megabytes(i.Size), i.Pinned)
	}
	return out.Flush()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

type imagePrune struct{ nodeImages }

func (c *imagePrune) Run(ctx context.Context, s *cli.Streams) (err error) {
	images, err := c.openExisting(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	gone, err := images.Prune(ctx)
	for _, n := range gone {
		fmt.Fprintf(s.Out, "%s removed\n", n)
	}
	if err == nil && len(gone) == 0 {
		fmt.Fprintln(s.Err, "Nothing to remove: every image is in use or imported")
	}
	return err
}

type buildHello struct {
	Name string `arg:"" help:"Name of the image."`
	File string `arg:"" type:"path" help:"Where to write it."`
}

func (c *buildHello) Run() error {
	if err := os.MkdirAll(filepath.Dir(c.File), 0o755); err != nil {
		return err
	}
	f, err := os.Create(c.File)
	if err != nil {
		return err
	}
	return errors.Join(writeHello(f, c.Name), f.Close())
}

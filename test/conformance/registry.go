package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// serveImages is this program's other life, on the hub's machine: a registry with the images of an archive, for tests that ask for a pull.
// It prints a line when it has all of them, and serves until it is killed. Blobs lie in dir.
func serveImages(ctx context.Context, archive, dir string) error {
	l, err := net.Listen("tcp", imageRegistry)
	if err != nil {
		return err
	}
	handler := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)), registry.Logger(log.New(io.Discard, "", 0)))
	go http.Serve(l, handler)
	open := func() (io.ReadCloser, error) { return os.Open(archive) }
	m, err := tarball.LoadManifest(open)
	if err != nil {
		return err
	}
	for _, d := range m {
		for _, t := range d.RepoTags {
			tag, err := name.NewTag(t, name.Insecure)
			if err != nil {
				return err
			}
			img, err := tarball.Image(open, &tag)
			if err != nil {
				return err
			}
			if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
				return err
			}
		}
	}
	fmt.Println("serving")
	<-ctx.Done()
	return nil
}

// startRegistry starts serveImages on the hub's machine, and waits for its line.
func (c *cluster) startRegistry(ctx context.Context, archive string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	blobs := filepath.Join(c.dir, "registry")
	if err := os.Mkdir(blobs, 0o700); err != nil {
		return err
	}
	if err := c.startCommand("registry", func() *exec.Cmd {
		return c.on(context.Background(), "hub", self, "-serve-images", archive, "-blobs", blobs)
	}); err != nil {
		return err
	}
	return c.until(ctx, 3*time.Minute, "the registry has the images", func() error {
		b, err := os.ReadFile(filepath.Join(c.dir, "registry.log"))
		if err == nil && !strings.Contains(string(b), "serving") {
			err = fmt.Errorf("its log: %s", b)
		}
		return err
	})
}

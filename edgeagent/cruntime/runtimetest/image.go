package runtimetest

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"runtime"
)

// Busybox is the image that the tests run: one static busybox with a link for each command, a few accounts, and nothing
// else. Its default command says hello and ends.
func Busybox(t testing.TB) v1.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		NeedOr(t, "busybox is not installed (on Debian: apt-get install busybox-static)")
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "data/"} {
		mode := int64(0o755)
		if d == "tmp/" {
			mode = 0o1777
		}
		add(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: mode}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, binary)
	for _, c := range []string{"sh", "cat", "echo", "sleep", "ls", "id", "env", "hostname", "true", "false", "test", "kill", "trap", "dd", "head",
		"stat", "mount", "stty", "tail", "touch", "nc", "wget", "httpd", "seq", "printf", "grep", "yes", "rm", "ps", "nslookup", "ip", "date", "readlink"} {
		add(tar.Header{Name: "bin/" + c, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\nalice:x:1234:1300:Alice:/:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nusers:x:1300:\nextra:x:1400:alice\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img := withLayer(t, empty.Image, buf.Bytes())
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config.Env = []string{"PATH=/bin", "FROM_IMAGE=yes"}
	cfg.Config.Entrypoint, cfg.Config.Cmd = []string{"/bin/echo"}, []string{"hello", "from", "the", "image"}
	cfg.Config.WorkingDir = "/data"
	img, err = mutate.ConfigFile(img, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// WithFile is an image with one more layer, which has a file.
func WithFile(t testing.TB, img v1.Image, path, content string) v1.Image {
	t.Helper()
	return WithEntry(t, img, tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o644}, []byte(content))
}

// WithEntry is an image with one more layer, which has one entry: a program, a link, a FIFO.
func WithEntry(t testing.TB, img v1.Image, h tar.Header, content []byte) v1.Image {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	h.Size = int64(len(content))
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return withLayer(t, img, buf.Bytes())
}

// withLayer is an image with one more layer, of an archive.
func withLayer(t testing.TB, img v1.Image, archive []byte) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil })
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		t.Fatal(err)
	}
	return img
}

// Built is an image as if it had been built for a platform, "arm64" or "arm/v7"; its contents stay what they are.
func Built(t testing.TB, img v1.Image, platform string) v1.Image {
	t.Helper()
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS = "linux"
	cfg.Architecture, cfg.Variant, _ = strings.Cut(platform, "/")
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

// Index is what docker buildx pushes: an image for each platform, and beside each an attestation, which is for none.
func Index(t testing.TB, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := v1.ImageIndex(mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	for _, img := range images {
		cfg, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		attestation := mutate.Annotations(empty.Image, map[string]string{"of": digest.String()}).(v1.Image)
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: cfg.Platform()}},
			mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
				Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.String()}}})
	}
	return index
}

// Tar is an image as "docker save" writes it.
func Tar(t testing.TB, ref string, img v1.Image) io.Reader {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tarball.Write(tag, img, &buf); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// Hope is how long tests wait for what must come: no promise of speed, and long enough for an emulated board.
const Hope = 2 * time.Minute

// NeedOr skips a test that needs something this machine lacks; where everything must be there (CI=true) it fails.
func NeedOr(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

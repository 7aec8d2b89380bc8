package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// imageRegistry is where images live: a registry on the hub's machine, which this program serves, so that nothing comes from elsewhere. The
// suite is given the same name by a list of registries. Nodes have all images beforehand; what says imagePullPolicy Always asks.
const imageRegistry = hubAddress + ":5000"

// repositories is the list of registries for the suite, in the form of upstream's KUBE_TEST_REPO_LIST.
const repositories = `promoterE2eRegistry: ` + imageRegistry + `/e2e
buildImageRegistry: ` + imageRegistry + `/build
gcEtcdRegistry: ` + imageRegistry + `
gcRegistry: ` + imageRegistry + `
sigStorageRegistry: ` + imageRegistry + `/storage
dockerLibraryRegistry: ` + imageRegistry + `/library
privateRegistry: private.conformance.local
cloudProviderGcpRegistry: ` + imageRegistry + `/cloud
`

// debianPackages make the root of the images that need more than one static program.
const debianPackages = "busybox-static,bash,curl,bind9-dnsutils,netcat-openbsd,iproute2,nginx-light,iputils-ping,procps,perl-base"

// recipe is one image.
type recipe struct {
	names  []string // with tag, below the registry
	short  bool     // the tests of short.txt use it
	debian bool     // on the Debian root
	layer  func(b *binaries) (layer, error)
	config v1.Config
}

// layer is a file tree: path without a leading slash → entry.
type layer map[string]entry

type entry struct {
	file string      // copied from
	text string      // or this content
	link string      // or a symbolic link to
	mode fs.FileMode // permission bits and setuid; a directory has fs.ModeDir
}

const (
	agnhostPasswd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n"
	agnhostGroup  = "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
)

func agnhost(b *binaries) (layer, error) {
	images := filepath.Join(b.upstream, "test/images/agnhost")
	return layer{
		"agnhost":       {file: b.agnhost, mode: 0o755},
		"agnhost-2":     {link: "agnhost"},
		"uploads":       {mode: fs.ModeDir | 0o777},
		"localhost.crt": {file: filepath.Join(images, "porter/localhost.crt"), mode: 0o644},
		"localhost.key": {file: filepath.Join(images, "porter/localhost.key"), mode: 0o644},
		"etc/passwd":    {text: agnhostPasswd, mode: 0o644},
		"etc/group":     {text: agnhostGroup, mode: 0o644},
	}, nil
}

// withData is an image of upstream's "update demo": agnhost and a page.
func withData(page string) func(*binaries) (layer, error) {
	return func(b *binaries) (layer, error) {
		l, err := agnhost(b)
		// The original is on another distribution, and the suite looks for its name.
		l["etc/os-release"] = entry{text: "NAME=\"Alpine Linux\"\n", mode: 0o644}
		l["data.json"] = entry{text: `{"image":"` + page + `"}` + "\n", mode: 0o644}
		l[page] = entry{text: page, mode: 0o644}
		return l, err
	}
}

// busybox is the distribution's static busybox with all its names, and a shell that runs it (stand-ins/sh).
func busybox(b *binaries) (layer, error) {
	const bin = "/bin/busybox"
	out, err := exec.Command(bin, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w; install busybox-static", bin, err)
	}
	l := layer{
		"bin/busybox": {file: bin, mode: 0o755},
		"bin/sh":      {file: b.shell, mode: 0o755},
		"usr/bin/sh":  {link: "/bin/sh"},
		"etc/passwd":  {text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", mode: 0o644},
		"etc/group":   {text: "root:x:0:\nnogroup:x:65534:\n", mode: 0o644},
		"tmp":         {mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	for _, applet := range strings.Fields(string(out)) {
		if applet != "busybox" && applet != "sh" {
			l["bin/"+applet] = entry{link: bin}
			l["usr/bin/"+applet] = entry{link: bin}
		}
	}
	return l, nil
}

func none(*binaries) (layer, error) { return nil, nil }

func only(path string, file func(*binaries) string, mode fs.FileMode) func(*binaries) (layer, error) {
	return func(b *binaries) (layer, error) { return layer{path: {file: file(b), mode: mode}}, nil }
}

var recipes = []recipe{
	{names: []string{"e2e/agnhost:2.63.0", "e2e/agnhost:2.55"}, short: true, debian: true, layer: agnhost, config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}},
	{names: []string{"e2e/nautilus:1.8"}, debian: true, layer: withData("nautilus.jpg"), config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}}},
	{names: []string{"e2e/kitten:1.8"}, debian: true, layer: withData("kitten.jpg"), config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}}},
	{names: []string{"e2e/busybox:1.37.0-1"}, short: true, layer: busybox, config: v1.Config{Cmd: []string{"sh"}}},
	{names: []string{"e2e/nonroot:1.5"}, layer: busybox, config: v1.Config{Cmd: []string{"sh"}, User: "1234"}},
	{names: []string{"e2e/nonewprivs:1.4"}, debian: true, layer: only("usr/local/bin/nnp", func(b *binaries) string { return b.nnp }, fs.ModeSetuid|0o755), config: v1.Config{Cmd: []string{"nnp"}}},
	{names: []string{"e2e/nginx:1.15-4"}, short: true, debian: true, layer: none, config: v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}}},
	{names: []string{"e2e/nginx:1.27-0"}, short: true, debian: true, layer: none, config: v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, Labels: map[string]string{"version": "1.27"}}},
	{names: []string{"e2e/ipc-utils:1.4"}, debian: true, layer: none, config: v1.Config{Cmd: []string{"sh"}}},
	{names: []string{"e2e/glibc-dns-testing:2.0.0"}, debian: true, layer: none, config: v1.Config{Cmd: []string{"sleep", "10000"}}},
	{names: []string{"e2e/perl:5.26"}, debian: true, layer: none, config: v1.Config{Cmd: []string{"perl", "-de0"}}},
	{names: []string{"e2e/regression-issue-74839:1.4"}, layer: only("regression-issue-74839", func(b *binaries) string { return b.issue74839 }, 0o755), config: v1.Config{Entrypoint: []string{"/regression-issue-74839"}}},
	{names: []string{"e2e/resource-consumer:1.14"}, debian: true, config: v1.Config{Entrypoint: []string{"/consumer"}}, layer: func(b *binaries) (layer, error) {
		return layer{"consumer": {file: b.consumer, mode: 0o755}, "consume-cpu/consume-cpu": {file: b.consumeCPU, mode: 0o755}}, nil
	}},
	{names: []string{"e2e/sample-apiserver:1.29.2"}, layer: only("sample-apiserver", func(b *binaries) string { return b.sampleAPI }, 0o755), config: v1.Config{Entrypoint: []string{"/sample-apiserver"}}},
	{names: []string{"etcd:3.6.8-0"}, layer: only("usr/local/bin/etcd", func(b *binaries) string { return b.etcd }, 0o755), config: v1.Config{Cmd: []string{"/usr/local/bin/etcd"}}},
	{names: []string{"pause:3.10.2"}, short: true, layer: only("pause", func(b *binaries) string { return b.idle }, 0o755), config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}},
}

// images returns the archive with all images, for short of those that the tests of short.txt use, made when a binary or a recipe has
// changed.
func images(ctx context.Context, b *binaries, cache string, short bool) (string, error) {
	archive, stamp, wanted := filepath.Join(cache, "images.tar"), filepath.Join(cache, "images.stamp"), recipes
	if short {
		archive, stamp = filepath.Join(cache, "images-short.tar"), filepath.Join(cache, "images-short.stamp")
		wanted = slices.DeleteFunc(slices.Clone(recipes), func(r recipe) bool { return !r.short })
	}
	want, err := fingerprint(b, wanted)
	if err != nil {
		return "", err
	}
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		if _, err := os.Stat(archive); err == nil {
			return archive, nil
		}
	}
	fmt.Println("making the images")
	root := filepath.Join(cache, "debian.tar")
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--format=tar", "--variant=essential", "--include="+debianPackages, "bookworm", root+".part")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("mmdebstrap: %w\n%s", err, out)
		}
		if err := os.Rename(root+".part", root); err != nil {
			return "", err
		}
	}
	base, err := tarball.LayerFromFile(root) // one for all: it is packed and hashed once
	if err != nil {
		return "", err
	}
	all := map[name.Tag]v1.Image{}
	for _, r := range wanted {
		img, err := r.image(b, base)
		if err != nil {
			return "", fmt.Errorf("image %s: %w", r.names[0], err)
		}
		for _, n := range r.names {
			tag, err := name.NewTag(imageRegistry+"/"+n, name.Insecure)
			if err != nil {
				return "", err
			}
			all[tag] = img
		}
	}
	if err := tarball.MultiWriteToFile(archive+".part", all); err != nil {
		return "", err
	}
	if err := os.Rename(archive+".part", archive); err != nil {
		return "", err
	}
	return archive, os.WriteFile(stamp, []byte(want), 0o644)
}

// fingerprint changes when the recipes or what they copy change.
func fingerprint(b *binaries, recipes []recipe) (string, error) {
	h := sha256.New()
	io.WriteString(h, debianPackages+imageRegistry)
	for _, r := range recipes {
		fmt.Fprintf(h, "%q %v %+v\n", r.names, r.debian, r.config)
		l, err := r.layer(b)
		if err != nil {
			return "", err
		}
		if err := l.write(h); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// image makes the recipe's image; debian is the layer of the Debian root.
func (r recipe) image(b *binaries, debian v1.Layer) (v1.Image, error) {
	img := v1.Image(empty.Image)
	var layers []v1.Layer
	if r.debian {
		layers = append(layers, debian)
	}
	files, err := r.layer(b)
	if err != nil {
		return nil, err
	}
	if files != nil {
		var buf bytes.Buffer
		if err := files.write(&buf); err != nil {
			return nil, err
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	img, err = mutate.AppendLayers(img, layers...)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config = "linux", runtime.GOARCH, r.config
	cf.Config.Env = append(cf.Config.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return mutate.ConfigFile(img, cf)
}

// write writes the tree as a tar stream, in an order that does not change.
func (l layer) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, path := range sortedKeys(l) {
		e := l[path]
		h := &tar.Header{Name: path, Mode: tarMode(e.mode), Typeflag: tar.TypeReg}
		content := []byte(e.text)
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		case e.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, path+"/"
		case e.file != "":
			b, err := os.ReadFile(e.file)
			if err != nil {
				return err
			}
			content = b
		}
		h.Size = int64(len(content))
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(content); err != nil {
			return err
		}
	}
	return t.Close()
}

func tarMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}

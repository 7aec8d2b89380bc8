// Package deb makes Debian packages of Petrel.
//
//	/usr/bin/petrel                                     the binary
//	/usr/lib/systemd/system/petrel-{hub,agent}.service  the units, neither enabled nor started by the installation
//	/etc/petrel/{hub,agent}.yaml                        settings, conffiles, for root only: an agent's may have its token
//	/usr/share/{man,bash-completion,zsh,fish,doc}/…     man pages, completion, licences, bill of materials
//
// The same input gives the same bytes: all times are Time, and owners are root.
package deb

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	nfpmdeb "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// Package is what goes into one.
type Package struct {
	Version    string // Petrel's own, as `git describe` makes it
	Arch       string // Debian's name of the architecture
	Maintainer string // NAME <ADDRESS>
	Time       time.Time
	Binary     string // file
	Units      string // directory with petrel-hub.service and petrel-agent.service
	Man        string // directory with man pages of section 1
	Completion string // directory with the files bash, zsh and fish
	Licenses   []string
	SBOM       string // file; empty: none
	// Level is that of zstd, whose files dpkg reads from Debian 12 and Ubuntu 21.10 on.
	Level int
}

//go:embed scripts settings
var own embed.FS

// Name returns the file name that Debian's tools expect.
func (p Package) Name() string { return "petrel_" + Version(p.Version) + "_" + p.Arch + ".deb" }

// description has one line of summary, and what package managers show below it.
const description = `containers on a fleet of small machines, by the Kubernetes API
Petrel makes machines such as Raspberry Pis nodes of a cluster that goes
on working while its network does not. This package has its hub, its
agent with containerd, the shim and runc inside, and its command line.

Nothing is started by the installation. petrel-hub.service and
petrel-agent.service take their settings from /etc/petrel.`

// Write makes the package in the directory and returns its name.
func (p Package) Write(dir string) (string, error) {
	stage, err := os.MkdirTemp("", "petrel-deb-")
	if err != nil {
		return "", fmt.Errorf("write package: %w", err)
	}
	defer os.RemoveAll(stage)
	s := &staged{dir: stage, time: p.Time}
	if err := p.stage(s); err != nil {
		return "", fmt.Errorf("write package: %w", err)
	}
	info := &nfpm.Info{
		Name: "petrel", Arch: p.Arch, Platform: "linux", Version: Version(p.Version), VersionSchema: "none",
		Section: "admin", Priority: "optional", Maintainer: p.Maintainer, Description: description, Homepage: "https://petrel.dev",
		MTime: p.Time, DisableGlobbing: true,
	}
	info.Contents = s.contents
	// Nothing is needed: the binary is static, and what runs containers is inside.
	info.Recommends = []string{"ca-certificates"} // registries are reached over TLS
	info.Deb.Arch = p.Arch
	info.Deb.Compression = "none" // repack compresses
	info.Scripts = nfpm.Scripts{
		PreInstall: s.script("preinst"), PostInstall: s.script("postinst"), PreRemove: s.script("prerm"), PostRemove: s.script("postrm"),
	}
	if s.err != nil {
		return "", fmt.Errorf("write package: %w", s.err)
	}
	info = nfpm.WithDefaults(info)
	var plain, out bytes.Buffer
	if err := nfpmdeb.Default.Package(info, &plain); err != nil {
		return "", fmt.Errorf("write package: %w", err)
	}
	if err := repack(&out, plain.Bytes(), p.Level); err != nil {
		return "", fmt.Errorf("write package: compress it: %w", err)
	}
	name := filepath.Join(dir, p.Name())
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write package: %w", err)
	}
	return name, nil
}

// stage adds all files.
func (p Package) stage(s *staged) error {
	s.file(p.Binary, "/usr/bin/petrel", 0o755)
	for _, role := range []string{"hub", "agent"} {
		unit, err := p.unit("petrel-" + role + ".service")
		if err != nil {
			return err
		}
		s.text("/usr/lib/systemd/system/petrel-"+role+".service", unit, 0o644)
		settings, err := own.ReadFile("settings/" + role + ".yaml")
		if err != nil {
			return err
		}
		s.config("/etc/petrel/"+role+".yaml", settings)
	}
	pages, err := filepath.Glob(filepath.Join(p.Man, "*.1"))
	if err != nil || len(pages) == 0 {
		return errors.Join(fmt.Errorf("man pages: none in %s", p.Man), err)
	}
	for _, page := range pages {
		s.gzipped(page, "/usr/share/man/man1/"+filepath.Base(page)+".gz")
	}
	for shell, name := range completions {
		s.file(filepath.Join(p.Completion, shell), name, 0o644)
	}
	copyright := []byte("Petrel: https://petrel.dev\nCopyright: the authors of Petrel, and those of what is inside it, who are named below\n\n")
	for _, l := range p.Licenses {
		b, err := os.ReadFile(l)
		if err != nil {
			return err
		}
		copyright = append(append(copyright, b...), '\n')
	}
	s.text("/usr/share/doc/petrel/copyright", copyright, 0o644)
	s.compress("/usr/share/doc/petrel/changelog.gz", []byte(p.changelog()))
	if p.SBOM != "" {
		s.gzipped(p.SBOM, "/usr/share/doc/petrel/petrel.spdx.json.gz")
	}
	return s.err
}

// completions are the places in which shells look for scripts of packages.
var completions = map[string]string{
	"bash": "/usr/share/bash-completion/completions/petrel",
	"zsh":  "/usr/share/zsh/vendor-completions/_petrel",
	"fish": "/usr/share/fish/vendor_completions.d/petrel.fish",
}

// unit returns a unit for the binary of the package: one that `petrel install` places is in /usr/local.
func (p Package) unit(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(p.Units, name))
	if err != nil {
		return nil, err
	}
	const there, here = "/usr/local/bin/petrel ", "/usr/bin/petrel "
	if !bytes.Contains(b, []byte("ExecStart="+there)) {
		return nil, fmt.Errorf("unit %s does not start %s", name, there)
	}
	return bytes.ReplaceAll(b, []byte(there), []byte(here)), nil
}

// changelog returns the one entry that Debian's policy asks for. What changed is published with the version.
func (p Package) changelog() string {
	return fmt.Sprintf("petrel (%s) stable; urgency=medium\n\n  * Built from version %s of Petrel.\n\n -- %s  %s\n",
		Version(p.Version), p.Version, p.Maintainer, p.Time.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

// staged collects the files of a package. The first error stays, and nothing is added after it.
type staged struct {
	dir      string // for what is not a file yet
	time     time.Time
	contents files.Contents
	err      error
}

func (s *staged) add(source, name, kind string, mode fs.FileMode) {
	s.contents = append(s.contents, &files.Content{
		Source: source, Destination: name, Type: kind,
		FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: s.time},
	})
}

func (s *staged) file(source, name string, mode fs.FileMode) {
	if s.err == nil {
		s.add(source, name, files.TypeFile, mode)
	}
}

// text adds what no file has yet.
func (s *staged) text(name string, text []byte, mode fs.FileMode) {
	s.file(s.temporary(name, text), name, mode)
}

func (s *staged) config(name string, text []byte) {
	source := s.temporary(name, text)
	if s.err == nil {
		s.add(source, name, files.TypeConfigNoReplace, 0o600) // an agent's token may be in it
	}
}

func (s *staged) gzipped(source, name string) {
	b, err := os.ReadFile(source)
	s.fail(err)
	s.compress(name, b)
}

// compress adds the text as `gzip -9n` makes it: without a name and a time.
func (s *staged) compress(name string, text []byte) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	s.fail(err)
	_, err = w.Write(text)
	s.fail(err)
	s.fail(w.Close())
	s.text(name, out.Bytes(), 0o644)
}

// script returns the file of a maintainer script.
func (s *staged) script(name string) string {
	b, err := own.ReadFile("scripts/" + name)
	s.fail(err)
	return s.temporary(name, b)
}

func (s *staged) temporary(name string, text []byte) string {
	file := filepath.Join(s.dir, strings.ReplaceAll(path.Clean(name), "/", "_"))
	s.fail(os.WriteFile(file, text, 0o644))
	return file
}

func (s *staged) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

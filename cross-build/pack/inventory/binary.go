package inventory

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// Binary is a program and what it was linked from.
type Binary struct {
	Name    string // of the program: petrel, containerd
	Version string
	File    string // base name
	SHA256  string // of the file, hexadecimal
	Module  string // Go module of its main package
	Part    Part   // its own licence and where it comes from; no version of Petrel's own
	Parts   []Part // by name and version
	Inside  []Binary
}

// Part is a Go module or a C library.
type Part struct {
	Name    string
	Version string
	PURL    string // empty: there is no scheme for it
	Sum     string // of a Go module, as go.sum has it: h1: and a SHA-256 in base64; empty: unknown
	License string // an SPDX expression
	Texts   []Text
}

// Text is one file with a licence or a notice.
type Text struct {
	Name string // relative to the part
	Body string
}

// Key names the part.
func (p Part) Key() string { return p.Name + "@" + p.Version }

// Source is where binaries were built.
type Source struct {
	// Root is the directory of Petrel's go.mod.
	Root string
	// Programs has what travels inside, and libraries.txt about the C libraries; empty: nothing is inside.
	Programs string
	// Version is that of Petrel.
	Version string

	tool goTool
}

// programs are those inside, each with the directory whose go.mod it is built by.
var programs = []struct{ name, dir string }{
	{"containerd", "."}, {"containerd-shim-runc-v2", "."}, {"runc", "cross-build/runc"},
}

// Read returns what is in a binary of petrel.
func (s Source) Read(file string) (Binary, error) {
	s.tool.dirs = map[string]string{}
	out, err := s.binary("petrel", file, s.Root)
	if err != nil {
		return Binary{}, fmt.Errorf("read binary: %w", err)
	}
	out.Version = s.Version
	if s.Programs == "" {
		return out, nil
	}
	for _, p := range programs {
		b, err := s.binary(p.name, filepath.Join(s.Programs, p.name), filepath.Join(s.Root, p.dir))
		if err != nil {
			return Binary{}, fmt.Errorf("read program: %w", err)
		}
		// A program of Petrel's own module has no version but Petrel's.
		if b.Version == "(devel)" || b.Version == "" {
			b.Version = s.Version
		}
		if p.name == "runc" {
			libs, err := libraries(filepath.Join(s.Programs, "libraries.txt"))
			if err != nil {
				return Binary{}, fmt.Errorf("read program runc: %w", err)
			}
			b.Parts = append(b.Parts, libs...)
		}
		out.Inside = append(out.Inside, b)
	}
	return out, nil
}

// binary reads one program, which the Go tool built in dir.
func (s Source) binary(name, file, dir string) (Binary, error) {
	digest, err := sum(file)
	if err != nil {
		return Binary{}, err
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return Binary{}, err
	}
	packages, err := s.tool.packages(dir, info)
	if err != nil {
		return Binary{}, err
	}
	out := Binary{Name: name, Version: info.Main.Version, File: filepath.Base(file), SHA256: digest, Module: info.Main.Path}
	std, err := s.tool.standard(dir, info.GoVersion)
	if err != nil {
		return Binary{}, err
	}
	out.Parts = append(out.Parts, std)
	for _, m := range info.Deps {
		p, err := s.module(m, packages)
		if err != nil {
			return Binary{}, err
		}
		out.Parts = append(out.Parts, p)
	}
	if info.Main.Path != petrel && !strings.HasPrefix(info.Main.Path, petrel+"/") { // a program of others
		if out.Part, err = s.module(&info.Main, packages); err != nil {
			return Binary{}, err
		}
	}
	slices.SortFunc(out.Parts, func(a, b Part) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return out, nil
}

// petrel is the path of Petrel's own module.
const petrel = "petrel.dev/petrel"

// module returns a module of which the packages are linked in.
func (s Source) module(m *debug.Module, packages []string) (Part, error) {
	if m.Replace != nil { // what was linked in, whatever its import path
		m = m.Replace
	}
	p := Part{Name: m.Path, Version: m.Version, Sum: m.Sum, PURL: goPURL(m.Path, m.Version)}
	dir, err := s.tool.directory(m.Path, m.Version)
	if err != nil {
		return Part{}, err
	}
	if p.Texts, err = texts(p.Name, dir, packages); err != nil {
		return Part{}, fmt.Errorf("licence of %s: %w", p.Key(), err)
	}
	if p.License, err = license(p); err != nil {
		return Part{}, fmt.Errorf("licence of %s: %w", p.Key(), err)
	}
	return p, nil
}

func sum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

package deb

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// program stands for petrel: it notes how it is called.
const program = "#!/bin/sh\necho petrel \"$@\" >>/calls\n"

// sample returns a package of small files.
func sample(t *testing.T, version string) Package {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	p := Package{
		Version: version, Arch: "amd64", Maintainer: "Petrel <petrel@example.org>", Time: time.Unix(1_700_000_000, 0), Units: "../../systemd",
		Binary: write("petrel", program), Level: 1,
		Man: filepath.Dir(write("man/petrel.1", ".TH PETREL 1\n")), Completion: filepath.Dir(write("completion/bash", "complete petrel\n")),
		Licenses: []string{write("LICENSE", "Apache License\n"), write("THIRD", "MIT License\n")}, SBOM: write("sbom", "{}\n"),
	}
	write("man/petrel-get.1", ".TH PETREL-GET 1\n")
	write("completion/zsh", "#compdef petrel\n")
	write("completion/fish", "complete -c petrel\n")
	return p
}

// build writes the package and returns its file.
func build(t *testing.T, p Package) string {
	t.Helper()
	name, err := p.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// output runs a program that has to succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPackage checks what Debian's policy and its tools want of a package: names, owners, modes, conffiles, digests, texts.
func TestPackage(t *testing.T) {
	file := build(t, sample(t, "v1.2.3"))
	if filepath.Base(file) != "petrel_1.2.3_amd64.deb" {
		t.Errorf("name %s", file)
	}
	for field, want := range map[string]string{
		"Package": "petrel", "Version": "1.2.3", "Architecture": "amd64", "Section": "admin", "Maintainer": "Petrel <petrel@example.org>",
	} {
		if got := strings.TrimSpace(output(t, "dpkg-deb", "-f", file, field)); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	dir := t.TempDir()
	output(t, "dpkg-deb", "-R", file, dir)
	list := output(t, "dpkg-deb", "-c", file)
	for _, want := range []string{
		`-rwxr-xr-x root/root .* \./usr/bin/petrel`,
		`-rw-r--r-- root/root .* \./usr/lib/systemd/system/petrel-hub\.service`,
		`-rw-r--r-- root/root .* \./usr/share/man/man1/petrel-get\.1\.gz`,
		`-rw-r--r-- root/root .* \./usr/share/bash-completion/completions/petrel`,
		`-rw-r--r-- root/root .* \./usr/share/zsh/vendor-completions/_petrel`,
		`-rw-r--r-- root/root .* \./usr/share/fish/vendor_completions\.d/petrel\.fish`,
		`-rw-r--r-- root/root .* \./usr/share/doc/petrel/copyright`,
		`-rw------- root/root .* \./etc/petrel/agent\.yaml`,
		`drwxr-xr-x root/root .* \./etc/petrel/`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(list) {
			t.Errorf("the list has no %s:\n%s", want, list)
		}
	}
	for line := range strings.Lines(list) {
		if !strings.Contains(line, " root/root ") || !strings.Contains(line, "2023-11-14") {
			t.Errorf("another owner or time: %s", line)
		}
	}
	if strings.Contains(list, "./usr/local") {
		t.Errorf("a package has nothing in /usr/local:\n%s", list)
	}
	if got := read(t, dir, "DEBIAN/conffiles"); got != "/etc/petrel/agent.yaml\n/etc/petrel/hub.yaml\n" && got != "/etc/petrel/hub.yaml\n/etc/petrel/agent.yaml\n" {
		t.Errorf("conffiles %q", got)
	}
	if unit := read(t, dir, "usr/lib/systemd/system/petrel-agent.service"); !strings.Contains(unit, "ExecStart=/usr/bin/petrel agent\n") || strings.Contains(unit, "/usr/local") {
		t.Errorf("the unit starts another binary:\n%s", unit)
	}
	if text := read(t, dir, "usr/share/doc/petrel/copyright"); !strings.Contains(text, "Apache License") || !strings.Contains(text, "MIT License") {
		t.Errorf("copyright %q", text)
	}
	if text := unzip(t, dir, "usr/share/doc/petrel/changelog.gz"); !strings.HasPrefix(text, "petrel (1.2.3) ") || !strings.Contains(text, "Tue, 14 Nov 2023 22:13:20 +0000") {
		t.Errorf("changelog %q", text)
	}
	if text := unzip(t, dir, "usr/share/man/man1/petrel.1.gz"); text != ".TH PETREL 1\n" {
		t.Errorf("man page %q", text)
	}
	check := exec.Command("md5sum", "--check", "--quiet", "DEBIAN/md5sums")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("md5sums: %v: %s", err, out)
	}
}

// TestScripts checks that maintainer scripts are what a minimal system's shell reads.
func TestScripts(t *testing.T) {
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm"} {
		output(t, "dash", "-n", "scripts/"+name)
		if text := read(t, "scripts", name); !strings.HasPrefix(text, "#!/bin/sh\n") || !strings.Contains(text, "\nset -e\n") {
			t.Errorf("%s does not begin as a maintainer script has to", name)
		}
	}
}

// TestSameBytes checks that a package depends on its input only: not on where its files are, or on their times and modes.
func TestSameBytes(t *testing.T) {
	one := sample(t, "v1")
	big := bytes.Repeat([]byte("petrel runs containers on small machines. "), 200_000)
	if err := os.WriteFile(one.Binary, big, 0o755); err != nil {
		t.Fatal(err)
	}
	first := build(t, one)
	two := sample(t, "v1")
	if err := os.WriteFile(two.Binary, big, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(two.Binary, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	second := build(t, two)
	output(t, "cmp", first, second)
}

// TestIncomplete checks that nothing is left out of a package silently.
func TestIncomplete(t *testing.T) {
	for what, spoil := range map[string]func(*Package){
		"man pages":  func(p *Package) { p.Man = t.TempDir() },
		"units":      func(p *Package) { p.Units = t.TempDir() },
		"binary":     func(p *Package) { p.Binary += "x" },
		"licences":   func(p *Package) { p.Licenses = append(p.Licenses, "/nowhere") },
		"completion": func(p *Package) { p.Completion = t.TempDir() },
	} {
		p := sample(t, "v1")
		spoil(&p)
		if name, err := p.Write(t.TempDir()); err == nil {
			t.Errorf("a package without %s is made: %s", what, name)
		}
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func unzip(t *testing.T, dir, name string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(read(t, dir, name)))
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "" || !r.ModTime.IsZero() {
		t.Errorf("%s has a name or a time in it", name)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

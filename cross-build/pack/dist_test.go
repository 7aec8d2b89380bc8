package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spdx/tools-golang/json"
)

// budget is what a device may have to download, in bytes: the design's, and TestBinarySize's.
const budget = 40_000_000

// debianOf are the architectures of Debian that a target has packages for.
var debianOf = map[string][]string{
	"linux-amd64": {"amd64"}, "linux-arm64": {"arm64"}, "linux-armv7": nil, "linux-armv6": {"armhf", "armel"}, "linux-riscv64": {"riscv64"},
}

// dist returns the directory that PETREL_DIST names, and the targets that were built into it. `make cross` sets it.
func dist(t *testing.T) (dir string, targets []string) {
	t.Helper()
	dir = os.Getenv("PETREL_DIST")
	if dir == "" {
		t.Skip("PETREL_DIST names no directory that `make cross` filled")
	}
	archives, err := filepath.Glob(filepath.Join(dir, "petrel-*.tar.gz"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archive is in %s: %v", dir, err)
	}
	for _, a := range archives {
		targets = append(targets, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(a), "petrel-"), ".tar.gz"))
	}
	return dir, targets
}

// binaryOf returns the file of a target's binary.
func binaryOf(dir, target string) string {
	file := filepath.Join(dir, "petrel-"+target)
	if strings.HasPrefix(target, "windows-") {
		file += ".exe"
	}
	return file
}

func versionOf(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestDownloadBudget holds what a device downloads, of each architecture that was built, to the budget: the compressed binary and the
// packages.
func TestDownloadBudget(t *testing.T) {
	dir, targets := dist(t)
	for _, target := range targets {
		if !strings.HasPrefix(target, "linux-") {
			continue
		}
		files := []string{filepath.Join(dir, "petrel-"+target+".zst")}
		for _, arch := range debianOf[target] {
			found, err := filepath.Glob(filepath.Join(dir, "petrel_*_"+arch+".deb"))
			if err != nil || len(found) != 1 {
				t.Errorf("%s has %d packages for Debian's %s, want one: %v", target, len(found), arch, err)
			}
			files = append(files, found...)
		}
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Error(err)
				continue
			}
			t.Logf("%s: %.1f MB", filepath.Base(f), float64(info.Size())/1e6)
			if info.Size() > budget {
				t.Errorf("%s has %d bytes, the budget is %d", filepath.Base(f), info.Size(), budget)
			}
		}
	}
}

// TestBinaries checks that each was built for its target, static, stripped, and without paths of the machine that built it.
func TestBinaries(t *testing.T) {
	dir, targets := dist(t)
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		file := binaryOf(dir, target)
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		got := settings["GOOS"] + "-" + settings["GOARCH"]
		if settings["GOARCH"] == "arm" {
			got += "v" + settings["GOARM"]
		}
		if got != target || settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || settings["vcs.time"] != "" {
			t.Errorf("%s is built for %s: %v", file, got, settings)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(top+"/")) {
			t.Errorf("%s has the path %s in it", file, top)
		}
		if !bytes.Contains(text, []byte(versionOf(t, dir))) {
			t.Errorf("%s does not have its version in it", file)
		}
		if strings.HasPrefix(target, "linux-") {
			checkELF(t, file)
		}
	}
}

// checkELF checks that a program needs no other file to run, and has no symbols.
func checkELF(t *testing.T, file string) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static", file)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Errorf("%s is not stripped", file)
	}
}

// TestMaterials checks that each binary has a bill of materials with what its build information has, the programs inside and the C
// libraries among it.
func TestMaterials(t *testing.T) {
	dir, targets := dist(t)
	for _, target := range targets {
		text, err := os.ReadFile(filepath.Join(dir, "petrel-"+target+".spdx.json"))
		if err != nil {
			t.Error(err)
			continue
		}
		doc, err := json.Read(bytes.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		packages := map[string]string{}
		for _, p := range doc.Packages {
			packages[p.PackageName+"@"+p.PackageVersion] = p.PackageLicenseDeclared
		}
		info, err := buildinfo.ReadFile(binaryOf(dir, target))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			if packages[m.Path+"@"+m.Version] == "" {
				t.Errorf("%s: the bill of materials lacks %s %s, or its licence", target, m.Path, m.Version)
			}
		}
		if !strings.HasPrefix(target, "linux-") {
			continue
		}
		for _, want := range []string{"containerd@", "containerd-shim-runc-v2@v2", "runc@v1", "libseccomp@2", "glibc@2", "libgcc@1", "stdlib@1", "github.com/containerd/containerd/v2@v2"} {
			if !slices.ContainsFunc(sortedKeys(packages), func(k string) bool { return strings.HasPrefix(k, want) }) {
				t.Errorf("%s: the bill of materials lacks %s", target, want)
			}
		}
	}
}

func sortedKeys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// TestArchives checks what is in them.
func TestArchives(t *testing.T) {
	dir, targets := dist(t)
	for _, target := range targets {
		list, err := exec.Command("tar", "-tzvf", filepath.Join(dir, "petrel-"+target+".tar.gz")).Output()
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		want := []string{"LICENSE", "THIRD_PARTY_LICENSES.txt", "petrel.spdx.json"}
		switch {
		case strings.HasPrefix(target, "linux-"):
			want = append(want, "petrel", "petrel-hub.service", "petrel-agent.service", "man/man1/petrel.1", "man/man1/petrel-get.1", "completion/bash")
		case strings.HasPrefix(target, "darwin-"):
			want = append(want, "petrel", "completion/zsh")
		default:
			want = append(want, "petrel.exe")
		}
		for _, name := range want {
			if !regexp.MustCompile(`(?m)^-rw.r-.r-. 0/0 .* \./` + regexp.QuoteMeta(name) + `$`).Match(list) {
				t.Errorf("%s: the archive lacks %s of root:\n%s", target, name, list)
			}
		}
	}
}

// TestPackages checks that packages are for the architecture that their binary is for, and have one version.
func TestPackages(t *testing.T) {
	dir, targets := dist(t)
	for _, target := range targets {
		for _, arch := range debianOf[target] {
			files, err := filepath.Glob(filepath.Join(dir, "petrel_*_"+arch+".deb"))
			if err != nil || len(files) != 1 {
				continue // TestDownloadBudget reports it
			}
			got, err := exec.Command("dpkg-deb", "-f", files[0], "Architecture").Output()
			if err != nil || strings.TrimSpace(string(got)) != arch {
				t.Errorf("%s: architecture %q: %v", files[0], got, err)
			}
			root := t.TempDir()
			if out, err := exec.Command("dpkg-deb", "-x", files[0], root).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", files[0], err, out)
				continue
			}
			if out, err := exec.Command("cmp", binaryOf(dir, target), filepath.Join(root, "usr/bin/petrel")).CombinedOutput(); err != nil {
				t.Errorf("%s has another binary than %s: %s", files[0], target, out)
			}
			copyright, err := os.ReadFile(filepath.Join(root, "usr/share/doc/petrel/copyright"))
			if err != nil || !bytes.Contains(copyright, []byte("GNU LESSER GENERAL PUBLIC LICENSE")) || !bytes.Contains(copyright, []byte("github.com/opencontainers/runc")) {
				t.Errorf("%s: the licences of what is inside are not there: %v", files[0], err)
			}
		}
	}
}

// TestSums checks that each file has its digest in SHA256SUMS, and the signature where there is a key.
func TestSums(t *testing.T) {
	dir, _ := dist(t)
	f, err := os.Open(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	listed := []string{"SHA256SUMS", "SHA256SUMS.minisig", "VERSION"}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			t.Fatalf("line %q", lines.Text())
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(text)); got != sum {
			t.Errorf("%s has the digest %s, and not %s", name, got, sum)
		}
		listed = append(listed, name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(listed, e.Name()) {
			t.Errorf("%s has no digest in SHA256SUMS", e.Name())
		}
	}
	script, err := os.ReadFile(filepath.Join(dir, "install.sh"))
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(dir, "petrel.pub")
	if _, err := os.Stat(public); err != nil {
		if !bytes.Contains(script, []byte("\nkey=''\n")) {
			t.Error("the release is not signed, and install.sh has a key")
		}
		t.Log("the release is not signed")
		return
	}
	out, err := exec.Command("minisign", "-V", "-p", public, "-m", filepath.Join(dir, "SHA256SUMS")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "petrel "+versionOf(t, dir)) {
		t.Errorf("minisign -V: %v: %s", err, out)
	}
	key, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(script, []byte("\nkey='"+strings.Split(string(key), "\n")[1]+"'\n")) {
		t.Error("install.sh does not have the key that the release is signed with")
	}
}

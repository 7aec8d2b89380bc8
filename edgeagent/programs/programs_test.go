package programs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// packed makes an archive of programs, and its manifest.
func packed(t *testing.T, files map[string]string) ([]byte, []Program) {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	var text strings.Builder
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(content))
		text.WriteString(hex.EncodeToString(sum[:]) + " " + name + " v1\n")
	}
	if w.Close() != nil || z.Close() != nil {
		t.Fatal("archive")
	}
	list, err := parse(text.String())
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), list
}

const shim = "containerd-shim-runc-v2"

var silent = slog.New(slog.DiscardHandler)

// TestInstall checks what makes programs be written again, and that nothing else does.
func TestInstall(t *testing.T) {
	files := map[string]string{"containerd": strings.Repeat("c", 100000), "runc": "#!/bin/sh\necho new\n"}
	archive, list := packed(t, files)
	for _, c := range []struct {
		name   string
		before func(dir string) error
		again  bool // whether all is written again
	}{
		{"nothing is wrong", func(string) error { return nil }, false},
		{"one is missing", func(d string) error { return os.Remove(filepath.Join(d, "runc")) }, true},
		{"one is cut short", func(d string) error { return os.Truncate(filepath.Join(d, "containerd"), 5000) }, true},
		{"one is of another version", func(d string) error { return os.WriteFile(filepath.Join(d, "runc"), []byte("old"), 0o755) }, true},
		{"one may not be run", func(d string) error { return os.Chmod(filepath.Join(d, "runc"), 0o644) }, true},
		{"one may be written by others", func(d string) error { return os.Chmod(filepath.Join(d, "runc"), 0o777) }, true},
		{"one is a link to elsewhere", func(d string) error {
			path := filepath.Join(d, "runc")
			if err := os.Rename(path, filepath.Join(d, "away")); err != nil {
				return err
			}
			return os.Symlink("away", path)
		}, true},
		{"a power cut while they were written", func(d string) error {
			return os.WriteFile(filepath.Join(d, "runc.part"), bytes.Repeat([]byte("x"), 1<<20), 0o600)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bin")
			if err := install(dir, list, bytes.NewReader(archive), silent); err != nil {
				t.Fatal(err)
			}
			if err := c.before(dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(filepath.Join(dir, "containerd"))
			if err := install(dir, list, bytes.NewReader(archive), silent); err != nil {
				t.Fatal(err)
			}
			for name, want := range files {
				path := filepath.Join(dir, name)
				fi, err := os.Lstat(path)
				if err != nil || fi.Mode() != 0o755 {
					t.Fatalf("%s: %v, %v", name, fi.Mode(), err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != want {
					t.Errorf("%s has %d bytes, %v", name, len(got), err)
				}
			}
			after, _ := os.Lstat(filepath.Join(dir, "containerd"))
			if again := !os.SameFile(before, after); again != c.again {
				t.Errorf("written again: %v", again)
			}
		})
	}
}

// TestDamagedArchive checks that a program which is not the one of the manifest takes nobody's place.
func TestDamagedArchive(t *testing.T) {
	archive, list := packed(t, map[string]string{"runc": strings.Repeat("new", 1000)})
	other, _ := packed(t, map[string]string{"runc": strings.Repeat("bad", 1000)})
	stranger, _ := packed(t, map[string]string{"evil": "x"})
	empty, _ := packed(t, nil)
	for name, a := range map[string][]byte{"other content": other, "cut short": archive[:len(archive)/2], "another name": stranger, "nothing in it": empty, "no archive": []byte("junk")} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "bin")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			old := filepath.Join(dir, "runc")
			if err := os.WriteFile(old, []byte("old"), 0o755); err != nil {
				t.Fatal(err)
			}
			err := install(dir, list, bytes.NewReader(a), silent)
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v", err)
			}
			if got, err := os.ReadFile(old); err != nil || string(got) != "old" {
				t.Errorf("the old program is %q, %v", got, err)
			}
			if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
				t.Errorf("beside the directory: %v, %v", entries, err)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	digest := strings.Repeat("0", 64)
	if list, err := parse(digest + " runc v1.5.3\n"); err != nil || len(list) != 1 || list[0] != (Program{"runc", "v1.5.3", digest}) {
		t.Errorf("%+v, %v", list, err)
	}
	for _, bad := range []string{"runc v1\n", digest + " runc\n", digest + " ../runc v1\n", "00 runc v1\n"} {
		if list, err := parse(bad); err == nil {
			t.Errorf("%q gives %+v", bad, list)
		}
	}
}

// TestOutdated checks that a process is outdated once the file that it runs has been replaced, and only by another.
func TestOutdated(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bin")
	archive, list := packed(t, map[string]string{Runc: string(program)})
	if err := install(dir, list, bytes.NewReader(archive), silent); err != nil {
		t.Fatal(err)
	}
	s := Set{dir: dir}
	cmd := exec.Command(s.Path(Runc), "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := install(dir, list, bytes.NewReader(archive), silent); err != nil || s.Outdated(cmd.Process.Pid, Runc) {
		t.Errorf("outdated by itself, %v", err)
	}
	archive, list = packed(t, map[string]string{Runc: string(program) + "newer"})
	if err := install(dir, list, bytes.NewReader(archive), silent); err != nil {
		t.Fatal(err) // the old one runs: its file must not be written to
	}
	if !s.Outdated(cmd.Process.Pid, Runc) {
		t.Error("a replaced program is not outdated")
	}
	if (Set{}).Outdated(cmd.Process.Pid, Runc) {
		t.Error("the machine's own programs are outdated")
	}
}

// TestEmbedded unpacks what is inside this build, and runs it on this machine.
func TestEmbedded(t *testing.T) {
	if len(Embedded()) == 0 {
		t.Skip("this build has no programs inside (make build gives the tag \"embedded\")")
	}
	s := In(filepath.Join(t.TempDir(), "bin"))
	if err := s.Prepare(silent); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, arg string }{{Runc, "--version"}, {Runc, "features"}, {shim, "-v"}} {
		out, err := exec.Command(s.Path(c.name), c.arg).CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", c.name, c.arg, err, out)
		}
		if c.arg == "features" && !strings.Contains(string(out), `"seccomp"`) {
			t.Errorf("runc is built without seccomp:\n%s", out)
		}
	}
	cmd := exec.Command("sh", "-c", "for p in containerd-shim-runc-v2 runc containerd; do command -v $p; done")
	cmd.Env = s.Environ()
	if out, err := cmd.Output(); err != nil || strings.Count(string(out), filepath.Dir(s.Path(Runc))) != 3 {
		t.Errorf("found first in the PATH: %s, %v", out, err)
	}
}

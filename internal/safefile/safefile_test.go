//go:build linux

package safefile

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a directory with one of everything that a hostile hand can put there.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "plain"), []byte("hello"), 0o600))
	must(os.MkdirAll(filepath.Join(dir, "root", "etc"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "root", "etc", "passwd"), []byte("inside"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "outside"), []byte("outside"), 0o600))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "sparse"), nil, 0o600))
	must(os.Truncate(filepath.Join(dir, "sparse"), 1<<40))
	for name, target := range map[string]string{"link": "plain", "zero": "/dev/zero", "root/abs": "/etc/passwd", "root/up": "../../../../outside",
		"root/deep": "etc/../abs", "root/loop": "loop", "root/etc/out": "../../outside", "root/dir": "/etc"} {
		must(os.Symlink(target, filepath.Join(dir, name)))
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(err)
	t.Cleanup(func() { l.Close() })
	return dir
}

func TestOnlyRegularFiles(t *testing.T) {
	dir := tree(t)
	if b, err := Read(filepath.Join(dir, "plain"), 5); err != nil || string(b) != "hello" {
		t.Errorf("a plain file: %q, %v", b, err)
	}
	for _, name := range []string{"fifo", "socket", "link", "zero", "root"} {
		for form, read := range map[string]func() ([]byte, error){
			"Read":   func() ([]byte, error) { return Read(filepath.Join(dir, name), 100) },
			"Tail":   func() ([]byte, error) { return Tail(filepath.Join(dir, name), 100) },
			"ReadIn": func() ([]byte, error) { return ReadIn(dir, name, 100) },
		} {
			if b, err := read(); !errors.Is(err, ErrNotRegular) && !errors.Is(err, ErrLink) {
				t.Errorf("%s of %s: %q, %v", form, name, b, err)
			}
		}
	}
	for _, dev := range []string{"/dev/zero", "/dev/tty"} {
		if _, err := Open(dev); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", dev, err)
		}
	}
	if _, err := Read(filepath.Join(dir, "none"), 5); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestBounded(t *testing.T) {
	dir := tree(t)
	for _, name := range []string{"plain", "sparse"} {
		if b, err := Read(filepath.Join(dir, name), 4); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "4 bytes") {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		if b, err := Tail(filepath.Join(dir, name), 4); err != nil || len(b) != 4 {
			t.Errorf("tail of %s: %q, %v", name, b, err)
		}
	}
	for max, want := range map[int]string{3: "llo", 5: "hello", 100: "hello"} {
		if b, err := Tail(filepath.Join(dir, "plain"), max); err != nil || string(b) != want {
			t.Errorf("the last %d bytes: %q, %v; want %q", max, b, err, want)
		}
	}
	// A file that says it is empty, and is not.
	if _, err := Read("/proc/self/status", 10); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a file of /proc: %v", err)
	}
}

func TestNoWayOut(t *testing.T) {
	dir := tree(t)
	root := filepath.Join(dir, "root")
	for name, want := range map[string]string{"etc/passwd": "inside", "/etc/passwd": "inside", "abs": "inside", "deep": "inside", "dir/passwd": "inside",
		"../../../../../etc/passwd": "inside", "etc/./../etc//passwd": "inside"} {
		if b, err := ReadInRoot(root, name, 100); err != nil || string(b) != want {
			t.Errorf("in root, %s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"up", "etc/out", "../outside", "loop", "", ".", "plain/x", "etc/passwd/x"} {
		if b, err := ReadInRoot(root, name, 100); err == nil {
			t.Errorf("in root, %s: %q", name, b)
		}
	}
	if b, err := ReadIn(root, "etc/passwd", 100); err != nil || string(b) != "inside" {
		t.Errorf("below a directory: %q, %v", b, err)
	}
	for _, name := range []string{"abs", "dir/passwd", "../outside", "etc/../etc/passwd", "up"} {
		if b, err := ReadIn(root, name, 100); err == nil {
			t.Errorf("below a directory, %s: %q", name, b)
		}
	}
}

// TestDeepNames checks that links into very deep directories do not hold one descriptor for each of the directories.
func TestDeepNames(t *testing.T) {
	root := t.TempDir()
	deep := strings.Repeat("d/", maxDepth-1)
	if err := os.MkdirAll(filepath.Join(root, deep, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{deep + "file", deep + "d/d/../file"} {
		if err := os.MkdirAll(filepath.Join(root, deep, "d/d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(deep+"d/d/../file", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadInRoot(root, deep+"file", 1); err != nil || string(b) != "x" {
		t.Errorf("%d directories deep: %q, %v", maxDepth-1, b, err)
	}
	for _, name := range []string{deep + "d/d/../file", "link"} {
		if _, err := ReadInRoot(root, name, 1); !errors.Is(err, ErrTooDeep) {
			t.Errorf("deeper: %v", err)
		}
	}
}

// TestNothingIsLeftOpen goes every way that there is and counts descriptors.
func TestNothingIsLeftOpen(t *testing.T) {
	dir := tree(t)
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := count()
	for range 20 {
		for _, name := range []string{"plain", "fifo", "root/etc/passwd", "root/abs", "root/loop", "root/up", "none", "root/dir/passwd", "root/dir/../../plain"} {
			_, _ = Read(filepath.Join(dir, name), 100)
			_, _ = ReadIn(dir, name, 100)
			_, _ = ReadInRoot(dir, name, 100)
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	link := fmt.Sprintf("/proc/self/fd/%d", w.Fd())
	name, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Pipe(link, name)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if n, err := p.Read(b); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	// The process has put another file in its place: it is not opened.
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	if _, err := Pipe(fmt.Sprintf("/proc/self/fd/%d", zero.Fd()), name); err == nil {
		t.Error("a device was taken for the pipe")
	}
}

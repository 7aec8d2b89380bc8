package programs

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/safefile"
)

// The names of the programs. containerd finds the shim, and the shim finds runc, by its name in the PATH.
const (
	Containerd = "containerd"
	Runc       = "runc"
)

// maxProgram bounds one program, in bytes: the archive is our own, but a damaged one must not fill memory.
const maxProgram = 128 << 20

// Program is one that travels inside this binary.
type Program struct {
	Name    string
	Version string
	digest  string // SHA-256 of the file, hexadecimal
}

// Embedded returns the programs inside this binary; none: it was built without them.
func Embedded() []Program {
	list, err := parse(manifest)
	if err != nil {
		panic(err) // the build has checked it
	}
	return list
}

// parse reads a manifest: a line for each program, its digest, name and version.
func parse(text string) (list []Program, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || len(f[0]) != sha256.Size*2 || f[1] != filepath.Base(f[1]) {
			return nil, fmt.Errorf("programs: line %q of the manifest has not the form: digest name version", strings.TrimSpace(line))
		}
		list = append(list, Program{Name: f[1], Version: f[2], digest: f[0]})
	}
	return list, nil
}

// Set is where the programs of an agent are. The zero value stands for those that the machine has in its PATH.
type Set struct {
	dir string // of those that came with this binary
}

// In returns the programs inside this binary, which belong in dir, or those of the machine when none are inside. It touches nothing.
func In(dir string) Set {
	if len(Embedded()) == 0 {
		return Set{}
	}
	return Set{dir: dir}
}

// Prepare makes sure that the programs are there. It unpacks those inside this binary unless they are there already, whole and of
// its version; it costs the reading of three files then.
func (s Set) Prepare(log *slog.Logger) error {
	if s.dir != "" {
		return install(s.dir, Embedded(), strings.NewReader(archive), log)
	}
	if _, err := exec.LookPath(Containerd); err != nil {
		return errors.New("containerd is not installed and none is running: install it (on Debian: apt-get install containerd runc), or name a socket with --containerd")
	}
	if _, err := exec.LookPath(Runc); err != nil {
		return errors.New("runc is not installed: install it (on Debian: apt-get install runc)")
	}
	return nil
}

// Path is the file of a program, or its name where the PATH decides.
func (s Set) Path(name string) string {
	if s.dir == "" {
		return name
	}
	return filepath.Join(s.dir, name)
}

// Environ is this process's environment with a PATH in which the programs come first.
func (s Set) Environ() []string {
	env := os.Environ()
	if s.dir == "" {
		return env
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return append(env, "PATH="+s.dir+":"+path) // of two with one name the last counts (os/exec)
}

// Outdated reports whether a process runs a program of this set from a file that has been replaced since.
func (s Set) Outdated(pid int, name string) bool {
	if s.dir == "" {
		return false // the distribution's upgrades are its own business
	}
	var runs, is unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &runs) != nil || unix.Stat(s.Path(name), &is) != nil {
		return false
	}
	return runs.Dev != is.Dev || runs.Ino != is.Ino
}

// install makes sure that dir has the programs of the list, whole, and replaces all of them from the archive otherwise. A process
// that runs one of them keeps the file that it runs. Agents and commands on one directory take turns.
func install(dir string, list []Program, archive io.Reader, log *slog.Logger) error {
	if err := safefile.PrivateDir(dir, log); err != nil {
		return fmt.Errorf("programs: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("programs: %w", err)
	}
	defer lock.Close() // which ends the lock too
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("programs: lock of %s: %w", dir, err)
	}
	why := ""
	for _, p := range list {
		if err := verify(filepath.Join(dir, p.Name), p.digest); err != nil {
			why = fmt.Sprintf("%s: %v", p.Name, err)
			break
		}
	}
	if why == "" {
		return nil
	}
	log.Info("programs unpacked", "directory", dir, "reason", why)
	if err := unpack(dir, list, archive); err != nil {
		return fmt.Errorf("programs: unpacking to %s: %w", dir, err)
	}
	return nil
}

// verify checks that a file is whole and may be run.
func verify(path, digest string) error {
	f, err := safefile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("not there")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Mode().Perm() != 0o755 {
		return fmt.Errorf("has mode %v", fi.Mode().Perm())
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != digest {
		return errors.New("damaged, or of another version")
	}
	return nil
}

// unpack writes the programs of an archive, each of which takes the place of the old file in one step.
func unpack(dir string, list []Program, archive io.Reader) error {
	z, err := zstd.NewReader(archive, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	missing := map[string]string{} // name → digest
	for _, p := range list {
		missing[p.Name] = p.digest
	}
	for r := tar.NewReader(z); ; {
		head, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		digest, ok := missing[head.Name]
		if !ok || head.Typeflag != tar.TypeReg {
			return fmt.Errorf("the archive has %q, which the manifest does not name", head.Name)
		}
		if err := place(filepath.Join(dir, head.Name), digest, r); err != nil {
			return fmt.Errorf("%s: %w", head.Name, err)
		}
		delete(missing, head.Name)
	}
	for name := range missing {
		return fmt.Errorf("the archive has no %s", name)
	}
	return nil
}

// place writes one program, if it is the one that the digest stands for.
func place(path, digest string, r io.Reader) error {
	part := path + ".part" // left by a power cut, it is overwritten
	tmp, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer tmp.Close()
	h := sha256.New()
	w := bufio.NewWriterSize(tmp, 256<<10)
	if _, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, maxProgram)); err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), tmp.Chmod(0o755)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("the archive has SHA-256 %s, the manifest %s: this petrel is damaged, install it again", got, digest)
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return durable.Rename(part, path)
}

package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"petrel.dev/petrel/internal/durable"
)

const (
	defaultMaxSize = 100 << 20
	// stamp is the time in the name of a file that was replaced: audit-2026-11-28T20-15-00.000.log. It sorts as it reads.
	stamp = "2006-01-02T15-04-05.000"
)

// file is the log on the disk. It is owned by one goroutine.
type file struct {
	Config
	log     *slog.Logger   // never nil
	out     io.WriteCloser // nil: it could not be opened again
	size    int64          // bytes in the file
	torn    bool           // the last line is not whole
	failure error          // of the last write; nil: it went well
}

func openFile(cfg Config, log *slog.Logger) (*file, error) {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	f := &file{Config: cfg, log: log}
	return f, f.open()
}

// stdout is not closed: others write to it.
type stdout struct{ io.Writer }

func (stdout) Close() error { return nil }

func (f *file) open() error {
	if f.Path == "-" {
		f.out = stdout{os.Stdout}
		return nil
	}
	// It may hold Secrets, if the policy asks for them.
	out, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	fi, err := out.Stat()
	if err != nil {
		out.Close()
		return err
	}
	if !fi.Mode().IsRegular() {
		out.Close()
		return fmt.Errorf("%s is no regular file", f.Path)
	}
	f.out, f.size = out, fi.Size()
	return nil
}

// write appends lines, in a new file when they do not fit into this one. It returns how many bytes of them are in the file.
func (f *file) write(lines []byte) (n int, err error) {
	n, f.failure = f.append(lines)
	return n, f.failure
}

func (f *file) append(lines []byte) (n int, err error) {
	if f.out != nil && f.gone() {
		// What could not be written to a file that nobody can read any more matters to nobody either.
		if err := f.close(); err != nil {
			f.log.Warn("audit log that was removed could not be closed", "error", err)
		}
		f.torn = false
	}
	if f.out != nil && f.Path != "-" && f.size > 0 && f.size+int64(len(lines)) > f.MaxSize {
		if err := f.rotate(); err != nil {
			return 0, err
		}
	}
	if f.out == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	if f.torn {
		n, err := f.out.Write([]byte("\n"))
		f.size += int64(n)
		if err != nil {
			return 0, err
		}
		f.torn = false
	}
	n, err = f.out.Write(lines)
	f.size += int64(n)
	f.torn = n > 0 && lines[n-1] != '\n'
	return n, err
}

// gone reports whether the file has been removed or renamed by others, perhaps because the disk was full: what is written to it would be
// lost, and keep the room taken.
func (f *file) gone() bool {
	out, ok := f.out.(*os.File)
	if !ok {
		return false // standard output
	}
	have, err := out.Stat()
	if err != nil {
		return false // the write says what is wrong
	}
	named, err := os.Stat(f.Path) // through a link, as open does
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(have, named)
}

// rotate gives the file a name with the time, and opens a new one.
func (f *file) rotate() error {
	err := f.close()
	if err != nil {
		return err
	}
	ext := filepath.Ext(f.Path)
	base := strings.TrimSuffix(f.Path, ext)
	at := time.Now().UTC()
	for { // an older file with that name must stay
		if _, err := os.Lstat(base + "-" + at.Format(stamp) + ext); errors.Is(err, fs.ErrNotExist) {
			break
		}
		at = at.Add(time.Millisecond)
	}
	if err := durable.Rename(f.Path, base+"-"+at.Format(stamp)+ext); err != nil {
		return err
	}
	f.torn = false
	if err := f.prune(); err != nil {
		f.log.Warn("replaced audit logs could not be removed, and will be tried again with the next", "error", err)
	}
	return f.open()
}

// prune removes replaced files that are too many or too old.
func (f *file) prune() error {
	ext := filepath.Ext(f.Path)
	base := strings.TrimSuffix(filepath.Base(f.Path), ext) + "-"
	entries, err := os.ReadDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	type replaced struct {
		name string
		at   time.Time
	}
	var old []replaced
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), base)
		text, is := strings.CutSuffix(text, ext)
		if at, err := time.Parse(stamp, text); ok && is && err == nil {
			old = append(old, replaced{e.Name(), at})
		}
	}
	slices.SortFunc(old, func(a, b replaced) int { return b.at.Compare(a.at) }) // the newest first
	for i, r := range old {
		tooMany := f.MaxBackups > 0 && i >= f.MaxBackups
		tooOld := f.MaxAge > 0 && time.Since(r.at) > time.Duration(f.MaxAge)*24*time.Hour
		if !tooMany && !tooOld {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(f.Path), r.name)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

func (f *file) close() error {
	if f.out == nil {
		return nil
	}
	err := f.out.Close()
	f.out = nil
	return err
}

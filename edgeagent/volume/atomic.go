package volume

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"petrel.dev/petrel/internal/safefile"
)

const dataLink = "..data"

// writeAtomic makes dir hold exactly the given files, in one step as seen by a reader: the files go to a new directory,
// and the rename of one link puts it in the place of the old. Nothing is written when nothing has changed.
func writeAtomic(dir string, files map[string]file, group *int64) error {
	for p := range files {
		if !filepath.IsLocal(p) || strings.HasPrefix(p, "..") {
			return fmt.Errorf("path %q leads out of the volume", p)
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if old != "" && same(filepath.Join(dir, old), files, group) {
		return link(dir, files) // a power cut may have come between the rename and the links
	}
	next, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			os.RemoveAll(next)
		}
	}()
	if err := os.Chmod(next, 0o755); err != nil {
		return err
	}
	for p, f := range files {
		if err := writeFile(filepath.Join(next, p), f, group); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, "..data_tmp")
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Base(next), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	keep = true
	if err := link(dir, files); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

// writeFile writes one file, in the new directory that no reader sees yet.
func writeFile(path string, f file, group *int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, f.data, 0o600); err != nil {
		return err
	}
	if group != nil {
		if err := os.Chown(path, -1, int(*group)); err != nil {
			return err
		}
	}
	return os.Chmod(path, modeOf(f, group)) // not subject to the umask
}

// modeOf returns a file's mode. Where the volume has a group, the group may read, as with kubelet.
func modeOf(f file, group *int64) os.FileMode {
	m := os.FileMode(f.mode) & os.ModePerm
	if group != nil {
		m |= 0o440
	}
	return m
}

// link makes the visible names, one for each first element of a path, and drops those that are no more.
func link(dir string, files map[string]file) error {
	want := map[string]bool{}
	for p := range files {
		top, _, _ := strings.Cut(p, "/")
		want[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "..") {
			continue
		}
		if want[name] && e.Type()&os.ModeSymlink != 0 {
			delete(want, name)
		} else if err := os.RemoveAll(filepath.Join(dir, name)); err != nil { // also a directory made for a subPath
			return err
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether dir holds the files already, no more and no less.
func same(dir string, files map[string]file, group *int64) bool {
	n := 0
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, ok := files[rel]
		if !ok {
			return os.ErrInvalid
		}
		b, err := safefile.Read(p, len(f.data))
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if !bytes.Equal(b, f.data) || fi.Mode().Perm() != modeOf(f, group) {
			return os.ErrInvalid
		}
		n++
		return nil
	})
	return err == nil && n == len(files)
}

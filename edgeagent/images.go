package edgeagent

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/safefile"
)

// imported is an archive that is in containerd already: one entry of DATA/agent/images.json, by the file's name.
type imported struct {
	Size     int64 // bytes
	Modified time.Time
	Images   []string // their full names
}

// importImages imports the archives in DATA/images. One that was imported before is passed over as long as the file is
// the same and its images are still there.
func (a *Agent) importImages(ctx context.Context) {
	files := archivesIn(filepath.Join(a.cfg.DataDir, "images"))
	if len(files) == 0 {
		return
	}
	memory := filepath.Join(a.dir, "images.json")
	known := map[string]imported{}
	if b, err := safefile.Read(memory, 1<<20); err == nil {
		_ = json.Unmarshal(b, &known) // damaged: import once more
	}
	have := a.storedImages(ctx)
	now := map[string]imported{}
	for _, path := range files {
		if ctx.Err() != nil {
			return
		}
		entry, err := a.importImage(ctx, path, known[filepath.Base(path)], have)
		if err != nil {
			a.log.Error("image archive not imported", "file", path, "error", err)
			continue
		}
		now[filepath.Base(path)] = entry
	}
	if b, err := json.Marshal(now); err == nil {
		if err := durable.WriteVolatile(memory, b, 0o600); err != nil {
			a.log.Warn("imported archives not noted", "error", err)
		}
	}
}

// archivesIn returns the files in dir with names of archives: .tar, also packed by gzip or zstd.
func archivesIn(dir string) []string {
	var files []string
	for _, pattern := range []string{"*.tar*", "*.tgz", "*.tzst"} {
		list, _ := filepath.Glob(filepath.Join(dir, pattern)) // the patterns are right
		files = append(files, list...)
	}
	slices.Sort(files)
	return files
}

func (a *Agent) storedImages(ctx context.Context) []string {
	list, err := a.rt.List(ctx)
	if err != nil {
		a.log.Warn("images cannot be listed", "error", err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

func (a *Agent) importImage(ctx context.Context, path string, old imported, have []string) (imported, error) {
	target, err := filepath.EvalSymlinks(path) // an archive may lie elsewhere, as on a stick
	if err != nil {
		return imported{}, err
	}
	f, err := safefile.Open(target)
	if err != nil {
		return imported{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return imported{}, err
	}
	missing := func(name string) bool { return !slices.Contains(have, name) }
	if old.Size == fi.Size() && old.Modified.Equal(fi.ModTime()) && len(old.Images) > 0 && !slices.ContainsFunc(old.Images, missing) {
		return old, nil
	}
	names, err := a.rt.Import(ctx, f)
	if err != nil {
		return imported{}, err
	}
	a.log.Info("images imported", "file", path, "images", strings.Join(names, " "))
	return imported{fi.Size(), fi.ModTime(), names}, nil
}

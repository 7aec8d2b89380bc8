package nodeapi

import (
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"petrel.dev/petrel/internal/safefile"
)

// maxListed bounds how many files of a directory are listed.
const maxListed = 10_000

// logs shows the log files of the machine. Links are not followed: what may write to a log directory, a pod with a hostPath
// among it, must not lead to other files.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/logs/"), "/")
	if name != "" && !fs.ValidPath(name) {
		http.NotFound(w, r)
		return
	}
	if f, err := safefile.OpenIn(s.cfg.LogDir, name); name != "" && err == nil {
		defer f.Close()
		if st, err := f.Stat(); err == nil {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			http.ServeContent(w, r, "", st.ModTime(), f)
			return
		}
	}
	names, err := s.listLogs(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	case err != nil:
		http.NotFound(w, r)
		return
	case !strings.HasSuffix(r.URL.Path, "/"):
		w.Header().Set("Location", filepath.Base(name)+"/")
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n")
	for _, n := range names {
		fmt.Fprintf(w, "<a href=\"%s\">%s</a>\n", (&url.URL{Path: "./" + n}).String(), html.EscapeString(n))
	}
	fmt.Fprint(w, "</pre>\n")
}

// listLogs returns the names in a directory below LogDir, directories with a slash. Links are left out.
func (s *Server) listLogs(name string) ([]string, error) {
	root, err := os.OpenRoot(s.cfg.LogDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for dir := name; dir != "" && dir != "."; dir = filepath.Dir(dir) {
		if st, err := root.Lstat(dir); err != nil || !st.IsDir() {
			return nil, fs.ErrNotExist
		}
	}
	if name == "" {
		name = "."
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0) // nothing else may have taken its place
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, _ := f.ReadDir(maxListed)
	var out []string
	for _, e := range entries {
		switch {
		case e.IsDir():
			out = append(out, e.Name()+"/")
		case e.Type().IsRegular():
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

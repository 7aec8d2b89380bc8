package inventory

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/module"
)

// goTool asks the Go tool that built the binaries, named by GO in the environment.
type goTool struct {
	dirs map[string]string // answers of `go env`, by the variable's name; never nil
}

func (t goTool) env(dir, name string) (string, error) {
	if t.dirs[name] == "" {
		out, err := run(dir, nil, "env", name)
		if err != nil {
			return "", err
		}
		t.dirs[name] = strings.TrimSpace(out)
	}
	return t.dirs[name], nil
}

// directory returns where the module cache has a module.
func (t goTool) directory(path, version string) (string, error) {
	// Upper case is written as !lower there, for file systems that know no difference.
	cache, err := t.env(".", "GOMODCACHE")
	if err != nil {
		return "", err
	}
	p, err := module.EscapePath(path)
	if err != nil {
		return "", err
	}
	v, err := module.EscapeVersion(version)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, p+"@"+v)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("module %s@%s is not in the module cache any more: %w", path, version, err)
	}
	return dir, nil
}

// packages returns the directories of all packages that a binary was linked from, asked with the settings it was built with.
func (t goTool) packages(dir string, info *debug.BuildInfo) ([]string, error) {
	var env []string
	args := []string{"list", "-deps", "-f", "{{if not .Standard}}{{.Dir}}{{end}}"}
	// Other settings would choose other files, and with them other packages.
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "GOARM", "CGO_ENABLED":
			env = append(env, s.Key+"="+s.Value)
		case "-tags":
			args = append(args, "-tags="+s.Value)
		}
	}
	out, err := run(dir, env, append(args, info.Path)...)
	if err != nil {
		return nil, err
	}
	return strings.Fields(out), nil
}

// standard returns Go's own library and runtime, which every binary has.
func (t goTool) standard(dir, version string) (Part, error) {
	root, err := t.env(dir, "GOROOT")
	if err != nil {
		return Part{}, err
	}
	// Databases of vulnerabilities know it by this name.
	p := Part{Name: "stdlib", Version: strings.TrimPrefix(version, "go"), PURL: "pkg:golang/stdlib@" + strings.TrimPrefix(version, "go")}
	if p.Texts, err = texts("", root, nil); err != nil {
		return Part{}, fmt.Errorf("licence of Go: %w", err)
	}
	if p.License, err = license(p); err != nil {
		return Part{}, fmt.Errorf("licence of Go: %w", err)
	}
	return p, nil
}

func run(dir string, env []string, args ...string) (string, error) {
	name := os.Getenv("GO")
	if name == "" {
		name = "go"
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("go %s: %w", args[0], err)
	}
	return string(out), nil
}

// goPURL returns a module's package URL, in lower case, as the specification of package URLs wants it.
func goPURL(path, version string) string {
	return "pkg:golang/" + strings.ToLower(path) + "@" + url.QueryEscape(version)
}

package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// openers are the calls that open, read or walk what a path leads to, by package.
var openers = map[string][]string{
	"os":       {"Open", "OpenFile", "ReadFile", "ReadDir", "DirFS", "CopyFS", "OpenRoot", "OpenInRoot", "Create", "WriteFile"},
	"filepath": {"Walk", "WalkDir", "Glob", "EvalSymlinks"},
	"unix":     {"Open", "Openat", "Openat2"},
	"syscall":  {"Open", "Openat"},
	"ioutil":   {"ReadFile", "ReadDir", "ReadAll", "WriteFile"},
}

// Why a file of edgeagent may open something with a plain call: nothing that a container, an image, a user or another
// program can shape is opened so. Everything else goes through internal/safefile.
const (
	own     = "lies in a directory that only the agent enters"
	kernel  = "is the kernel's own file: /proc/self, /proc/sys, /sys or a list of names"
	machine = "belongs to the machine's administrator"
)

// opens lists each file of edgeagent that opens something so, how often, and why it may.
var opens = map[string]struct {
	calls  map[string]int
	reason string
}{
	"cache/log.go":             {map[string]int{"os.OpenFile": 1, "os.ReadFile": 1}, own},
	"cgroup/change.go":         {map[string]int{"os.ReadFile": 1}, kernel},
	"cgroup/tree.go":           {map[string]int{"filepath.Glob": 2, "filepath.WalkDir": 1, "os.ReadDir": 1, "os.ReadFile": 5, "os.WriteFile": 2}, kernel},
	"ctrd/host.go":             {map[string]int{"os.ReadFile": 1}, kernel},
	"ctrd/oom.go":              {map[string]int{"os.ReadFile": 1, "os.WriteFile": 1}, kernel},
	"storage/walk.go":          {map[string]int{"unix.Openat": 2}, "is a directory, or nothing: opened without following or waiting, to count what is below"},
	"podrun/stop.go":           {map[string]int{"filepath.Glob": 1}, own + ": names of logs"},
	"ctrd/child.go":            {map[string]int{"os.OpenFile": 1, "os.WriteFile": 2}, own},
	"ctrd/container.go":        {map[string]int{"os.WriteFile": 1}, own},
	"ctrd/exec.go":             {map[string]int{"os.OpenFile": 1}, own + ": a FIFO, opened without waiting"},
	"ctrd/procs.go":            {map[string]int{"os.ReadDir": 2}, kernel + "; or names in containerd's own directory"},
	"ctrd/rescue.go":           {map[string]int{"os.ReadDir": 1}, kernel},
	"ctrd/runtime.go":          {map[string]int{"os.ReadDir": 1}, "names in the run directory"},
	"ctrd/tidy.go":             {map[string]int{"os.ReadFile": 1}, kernel},
	"ctrd/sandbox.go":          {map[string]int{"os.WriteFile": 2}, own},
	"exit.go":                  {map[string]int{"os.OpenFile": 1, "os.ReadDir": 1}, own},
	"config.go":                {map[string]int{"os.DirFS": 1}, kernel + "; or " + machine + ": its names and ids"},
	"identity/hub.go":          {map[string]int{"os.ReadFile": 1}, own},
	"identity/identity.go":     {map[string]int{"os.ReadFile": 1}, own},
	"images.go":                {map[string]int{"filepath.EvalSymlinks": 1, "filepath.Glob": 1}, own},
	"cgroupstat/cgroupstat.go": {map[string]int{"os.ReadFile": 3}, kernel},
	"nodeapi/logs.go":          {map[string]int{"os.OpenRoot": 1}, "the log directory of the machine is its administrator's; what lies below it is opened in it, directories only and without waiting"},
	"nodeapi/metrics.go":       {map[string]int{"os.ReadFile": 1}, kernel},
	"node/machine.go":          {map[string]int{"os.ReadFile": 3}, kernel},
	"node/node.go":             {map[string]int{"os.DirFS": 1, "os.ReadFile": 1}, kernel},
	"podlog/feed.go":           {map[string]int{"os.OpenFile": 1}, own + ": a log's spool"},
	"podlog/pump.go":           {map[string]int{"os.OpenFile": 4, "os.ReadFile": 1}, own + ": logs and their spools, which a container only writes to through its shim"},
	"podlog/read.go":           {map[string]int{"os.Open": 1}, own + ": logs"},
	"programs/programs.go":     {map[string]int{"os.OpenFile": 2}, own},
	"podnet/cleanup.go":        {map[string]int{"os.ReadDir": 1}, own},
	"podnet/ipam.go":           {map[string]int{"os.ReadDir": 1, "os.ReadFile": 1}, own},
	"podnet/link.go":           {map[string]int{"os.ReadDir": 1, "os.ReadFile": 2, "os.WriteFile": 1}, kernel},
	"podnet/network.go":        {map[string]int{"os.ReadDir": 1}, own},
	"podnet/thread.go":         {map[string]int{"os.OpenFile": 1, "os.WriteFile": 4}, kernel + "; or a name for a namespace in the agent's directory"},
	"podrun/images.go":         {map[string]int{"os.ReadDir": 1}, own},
	"podrun/files.go":          {map[string]int{"os.OpenFile": 2, "os.ReadFile": 2}, own + ": for writing, without following or waiting; containers see the single files. What is read " + machine + ": its hosts and resolv.conf"},
	"podrun/manager.go":        {map[string]int{"os.ReadDir": 1}, own},
	"volume/atomic.go":         {map[string]int{"filepath.WalkDir": 1, "os.ReadDir": 1, "os.WriteFile": 1}, "lies in a volume that containers see read-only"},
	"volume/claim.go":          {map[string]int{"filepath.Glob": 1}, own + ": names of volumes"},
	"volume/hostpath.go":       {map[string]int{"os.OpenFile": 1}, "is made where nothing is, without waiting"},
	"volume/image.go":          {map[string]int{"filepath.EvalSymlinks": 1}, own},
	"volume/volume.go":         {map[string]int{"os.ReadDir": 1}, own + ": names of volumes"},
	"volume/mounts.go":         {map[string]int{"filepath.EvalSymlinks": 1, "os.ReadFile": 1}, kernel + "; or " + own},
	"volume/subpath.go":        {map[string]int{"os.OpenFile": 1, "os.OpenRoot": 1, "unix.Open": 1}, "is opened with O_PATH, or " + own},
}

// TestAgentOpensNothingHostile checks that a new plain call is a failure until its place here says why the path cannot be
// shaped by others.
func TestAgentOpensNothingHostile(t *testing.T) {
	root := filepath.Join("..", "..", "edgeagent")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "runtimetest") {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		calls, err := callsOf(path)
		if err != nil {
			return err
		}
		allowed := opens[name]
		seen[name] = len(calls) > 0
		for call, n := range calls {
			if n > allowed.calls[call] {
				t.Errorf("edgeagent/%s calls %s %d times, %d are allowed: what others can shape is opened with internal/safefile; if nobody can, say why in internal/rules/files_test.go",
					name, call, n, allowed.calls[call])
			}
		}
		for call, n := range allowed.calls {
			if calls[call] < n {
				t.Errorf("edgeagent/%s calls %s %d times, %d are allowed: make the list in internal/rules/files_test.go true", name, call, calls[call], n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(opens)) {
		if !seen[name] {
			t.Errorf("edgeagent/%s opens nothing, or is gone: take it from the list", name)
		}
		if opens[name].reason == "" {
			t.Errorf("edgeagent/%s: no reason", name)
		}
	}
}

// callsOf counts the uses of openers in a file, called or handed on.
func callsOf(path string) (map[string]int, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	out := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := sel.X.(*ast.Ident); ok && slices.Contains(openers[pkg.Name], sel.Sel.Name) {
			out[pkg.Name+"."+sel.Sel.Name]++
		}
		return true
	})
	return out, nil
}

// TestAgentAsksNoProcess exists because a process's arguments, environment and working directory are its own choice, and its
// memory may lie where a read of it waits. Who a process is, edgeagent/ctrd/procs.go decides.
func TestAgentAsksNoProcess(t *testing.T) {
	root := filepath.Join("..", "..", "edgeagent")
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, bad := range []string{`"cmdline"`, `/cmdline"`, `"environ"`, `/environ"`, `oci.WithUser(`, `oci.WithAdditionalGIDs(`, `oci.WithUsername(`, `oci.WithUserID(`, `oci.WithAppendAdditionalGroups(`} {
			if strings.Contains(string(b), bad) {
				t.Errorf("%s uses %s: see edgeagent/ctrd/procs.go and user.go for why not", path, bad)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

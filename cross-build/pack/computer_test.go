package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"petrel.dev/petrel/cross-build/pack/packtest"
)

// shells are those that install.sh has to work with, as commands.
var shells = map[string][]string{"dash": {"dash"}, "busybox": {"busybox", "sh"}, "bash": {"bash", "--posix"}}

// computer is where install.sh runs: a PATH with a choice of programs, and a directory for the binary.
type computer struct {
	t     *testing.T
	shell []string
	bin   string // the only directory of its PATH
	to    string
	calls string
	user  uint32
	extra []string // arguments of every run
	// script is install.sh, or a copy of it.
	script string
}

// basics are what every machine has; the programs that install.sh can do without come on top.
var basics = []string{"awk", "basename", "cat", "chmod", "cmp", "cp", "cut", "dd", "df", "dirname", "grep", "gzip", "head", "id", "mkdir", "mktemp", "mv",
	"od", "printf", "rm", "sed", "sh", "tail", "tar", "tr", "wc", "sha256sum"}

// newComputer returns one of the architecture that uname says, with the shell and, beside the basics, the programs.
func newComputer(t *testing.T, shell, uname string, programs ...string) *computer {
	t.Helper()
	dir := t.TempDir()
	c := &computer{t: t, shell: shells[shell], bin: filepath.Join(dir, "bin"), to: filepath.Join(dir, "to"), calls: filepath.Join(dir, "calls")}
	for _, d := range []string{c.bin, c.to} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for d := c.to; d != "/" && d != "."; d = filepath.Dir(d) { // for tests as another user
		_ = os.Chmod(d, 0o755)
	}
	for _, p := range append(basics, programs...) {
		from := p
		if shell == "busybox" && p != "openssl" && p != "minisign" && p != "curl" && p != "zstd" {
			from = "busybox"
		}
		if err := os.Symlink(packtest.Program(t, from), filepath.Join(c.bin, p)); err != nil {
			t.Fatal(err)
		}
	}
	c.fake("uname", "case $1 in -s) echo Linux ;; *) echo "+uname+" ;; esac")
	c.fake("getconf", "echo 64")
	if shell == "busybox" { // which runs its own uname whatever the PATH has
		c.extra = []string{"--arch", strings.Replace(uname, "x86_64", "amd64", 1)}
	}
	return c
}

// fake puts a script into the PATH.
func (c *computer) fake(name, script string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// run runs install.sh.
func (c *computer) run(args ...string) (string, error) {
	c.t.Helper()
	out, err := c.command(args...).CombinedOutput()
	return string(out), err
}

// command returns install.sh's.
func (c *computer) command(args ...string) *exec.Cmd {
	c.t.Helper()
	if c.script == "" {
		script, err := filepath.Abs("../install.sh")
		if err != nil {
			c.t.Fatal(err)
		}
		c.script = script
	}
	cmd := exec.Command(packtest.Program(c.t, c.shell[0]), append(append(c.shell[1:len(c.shell):len(c.shell)], c.script, "--to", c.to), append(c.extra, args...)...)...)
	cmd.Env = []string{"PATH=" + c.bin, "CALLS=" + c.calls, "LC_ALL=C"}
	if c.user != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.user, Gid: c.user}}
	}
	return cmd
}

// installed returns what `petrel version` says, or nothing.
func (c *computer) installed() string {
	out, _ := exec.Command(filepath.Join(c.to, "petrel"), "version").Output()
	return strings.TrimSpace(string(out))
}

// clean checks that nothing is left but, perhaps, the binary.
func (c *computer) clean() {
	c.t.Helper()
	entries, err := os.ReadDir(c.to)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "petrel" {
			c.t.Errorf("%s is left", e.Name())
		}
	}
}

// works runs install.sh, which has to succeed.
func (c *computer) works(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("install.sh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	c.clean()
	return out
}

// refuses runs install.sh, which has to fail with a message, and to leave what is there.
func (c *computer) refuses(message string, args ...string) {
	c.t.Helper()
	before := c.installed()
	out, err := c.run(args...)
	if err == nil || !strings.Contains(out, message) {
		c.t.Errorf("install.sh %s: %v, want %q in\n%s", strings.Join(args, " "), err, message, out)
	}
	if after := c.installed(); after != before {
		c.t.Errorf("install.sh %s: it fails, and %q is installed in place of %q", strings.Join(args, " "), after, before)
	}
	c.clean()
}

package deb

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"petrel.dev/petrel/cross-build/pack/packtest"
)

// systemctl stands for systemd's: it notes what it is asked for. Units in /running are active.
const systemctl = `#!/bin/sh
echo systemctl "$@" >>/calls
for last; do :; done
case "$*" in
  *is-active*) grep -qx "$last" /running ;;
esac
`

// machine is a minimal Debian in a directory, on which dpkg works as on a real one. Its systemd only notes what it is asked for, and
// starts nothing.
type machine struct {
	t    *testing.T
	root string
}

// newMachine makes one, with systemd or, as while an image is built, without. It is in memory: dpkg waits for the disk after each file that it
// writes, which is most of its time.
func newMachine(t *testing.T, debian string, systemd bool) machine {
	t.Helper()
	m := machine{t: t, root: filepath.Join(t.TempDir(), "root")}
	if err := os.Mkdir(m.root, 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "petrel-deb", m.root)
	t.Cleanup(func() { output(t, "umount", "--lazy", m.root) })
	output(t, "tar", "-xf", debian, "-C", m.root)
	if systemd {
		if err := os.MkdirAll(filepath.Join(m.root, "run/systemd/system"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write("usr/bin/systemctl", systemctl, 0o755)
	m.write("running", "petrel-agent.service\n", 0o644)
	return m
}

func (m machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	full := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// run runs a command in the machine, without a terminal to ask anything on.
func (m machine) run(args ...string) (string, error) {
	cmd := exec.Command("chroot", append([]string{m.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "DPKG_MAINTSCRIPT_PACKAGE=petrel"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m machine) dpkg(args ...string) string {
	m.t.Helper()
	out, err := m.run(append([]string{"dpkg"}, args...)...)
	if err != nil {
		m.t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// install installs the package.
func (m machine) install(p Package) (string, error) {
	m.t.Helper()
	output(m.t, "cp", build(m.t, p), filepath.Join(m.root, "petrel.deb"))
	return m.run("dpkg", "-i", "/petrel.deb")
}

func (m machine) has(name string) bool {
	_, err := os.Lstat(filepath.Join(m.root, name))
	return err == nil
}

// calls returns what was called since the last time.
func (m machine) calls() string {
	b, _ := os.ReadFile(filepath.Join(m.root, "calls"))
	os.Remove(filepath.Join(m.root, "calls"))
	return string(b)
}

// debian returns an archive of a minimal Debian. Any one does, so the conformance suite's is taken where it was made, and one made here is
// kept for later runs.
func debian(t *testing.T) string {
	t.Helper()
	packtest.Root(t)
	packtest.Program(t, "mmdebstrap")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(cache, "petrel-pack", "debian.tar")
	for _, archive := range []string{filepath.Join(cache, "petrel-conformance", "debian.tar"), own} {
		if _, err := os.Stat(archive); err == nil {
			return archive
		}
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(t.TempDir(), "debian.tar")
	output(t, "mmdebstrap", "--quiet", "--format=tar", "--variant=essential", "--dpkgopt=force-unsafe-io", "bookworm", part)
	output(t, "mv", part, own+".part") // from another file system, perhaps
	if err := os.Rename(own+".part", own); err != nil {
		t.Fatal(err)
	}
	return own
}

// TestLifecycle installs, upgrades, removes and purges the package with dpkg on a minimal Debian.
func TestLifecycle(t *testing.T) {
	archive := debian(t)
	t.Run("a machine that runs", func(t *testing.T) { testRunning(t, newMachine(t, archive, true)) })
	t.Run("an image", func(t *testing.T) { testImage(t, newMachine(t, archive, false)) })
	t.Run("after petrel install", func(t *testing.T) { testInstalled(t, newMachine(t, archive, true)) })
	t.Run("purge spares", func(t *testing.T) { testSpared(t, newMachine(t, archive, true)) })
}

func testRunning(t *testing.T, m machine) {
	if out, err := m.install(sample(t, "v1.0.0")); err != nil || !strings.Contains(out, "nothing was started") {
		t.Fatalf("install: %v\n%s", err, out)
	}
	if got := m.calls(); strings.Contains(got, "start") || strings.Contains(got, "enable") {
		t.Errorf("the installation starts or enables something:\n%s", got)
	}
	if m.has("etc/systemd/system/multi-user.target.wants/petrel-agent.service") {
		t.Error("the installation enables the agent")
	}
	if out := m.dpkg("--verify", "petrel"); out != "" {
		t.Errorf("dpkg --verify: %s", out)
	}

	// The administrator's settings and choice of services outlive an upgrade, which asks nothing.
	m.write("etc/petrel/agent.yaml", "join: token\n", 0o600)
	if out, err := m.run("deb-systemd-helper", "enable", "petrel-agent.service"); err != nil {
		t.Fatalf("enable: %v\n%s", err, out)
	}
	if out, err := m.install(sample(t, "v1.1.0")); err != nil || strings.Contains(out, "nothing was started") {
		t.Fatalf("upgrade: %v\n%s", err, out)
	}
	got := m.calls()
	if !strings.Contains(got, "try-restart") || !strings.Contains(got, "petrel-agent.service") || strings.Contains(got, "systemctl stop") {
		t.Errorf("the upgrade does not restart what runs, or stops it before:\n%s", got)
	}
	if strings.Contains(got, "petrel agent") {
		t.Errorf("the upgrade ends pods:\n%s", got)
	}
	if s := read(t, m.root, "etc/petrel/agent.yaml"); s != "join: token\n" {
		t.Errorf("settings after the upgrade: %q", s)
	}

	m.write("var/lib/petrel/hub/petrel.db", "objects", 0o600)
	m.dpkg("-r", "petrel")
	got = m.calls()
	agent, pods, hub := strings.Index(got, "stop petrel-agent.service"), strings.Index(got, "petrel agent --stop-pods"), strings.Index(got, "stop petrel-hub.service")
	if agent < 0 || pods < agent || hub < pods {
		t.Errorf("the removal has to stop the agent, its pods, and then the hub:\n%s", got)
	}
	if m.has("usr/bin/petrel") || !m.has("etc/petrel/agent.yaml") || !m.has("var/lib/petrel/hub/petrel.db") {
		t.Error("a removal takes the program, and leaves settings and data")
	}

	m.dpkg("-P", "petrel")
	for _, name := range []string{"etc/petrel", "var/lib/petrel", "run/petrel", "etc/systemd/system/multi-user.target.wants/petrel-agent.service",
		"usr/share/doc/petrel", "var/lib/systemd/deb-systemd-helper-enabled/petrel-agent.service.dsh-also"} {
		if m.has(name) {
			t.Errorf("the purge leaves /%s", name)
		}
	}
}

func testImage(t *testing.T, m machine) {
	if out, err := m.install(sample(t, "v1.0.0")); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	if out, err := m.install(sample(t, "v1.1.0")); err != nil {
		t.Fatalf("upgrade: %v\n%s", err, out)
	}
	m.dpkg("-P", "petrel")
	if got := m.calls(); got != "" {
		t.Errorf("in an image nothing is called, neither systemd nor petrel:\n%s", got)
	}
}

func testInstalled(t *testing.T, m machine) {
	const unit = "etc/systemd/system/petrel-hub.service"
	m.write(unit, "[Service]\nExecStart=/usr/local/bin/petrel hub\n", 0o644)
	out, err := m.install(sample(t, "v1.0.0"))
	if err == nil || !strings.Contains(out, "petrel uninstall") || m.has("usr/bin/petrel") {
		t.Errorf("over what `petrel install` made: %v\n%s", err, out)
	}
	// One that an administrator wrote for the package is no reason to refuse.
	m.write(unit, "[Service]\nExecStart=/usr/bin/petrel hub\n", 0o644)
	if out, err := m.install(sample(t, "v1.0.0")); err != nil {
		t.Errorf("over an administrator's unit: %v\n%s", err, out)
	}
}

func testSpared(t *testing.T, m machine) {
	if out, err := m.install(sample(t, "v1.0.0")); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	m.write("srv/data/precious", "x", 0o644)
	if err := os.MkdirAll(filepath.Join(m.root, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/srv/data", filepath.Join(m.root, "var/lib/petrel")); err != nil {
		t.Fatal(err)
	}
	if out := m.dpkg("-P", "petrel"); !m.has("srv/data/precious") || !strings.Contains(out, "is not removed") {
		t.Errorf("the purge follows a link:\n%s", out)
	}
}

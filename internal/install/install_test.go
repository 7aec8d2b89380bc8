package install

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// image makes a directory with the files of a machine: directories end with a slash.
func image(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range append(files, "etc/", "usr/local/bin/", "var/lib/", "var/log/") {
		full := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, full, "x")
	}
	return root
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// list returns all files below root: name → mode and content, or what a link leads to.
func list(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			text, err = os.Readlink(path)
		case fi.Mode().IsRegular():
			var b []byte
			b, err = os.ReadFile(path)
			text = string(b)
		}
		out[strings.TrimPrefix(path, root)] = fi.Mode().String() + " " + text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// target returns one without commands, and the list of changes that it reports.
func target(root string) (Target, *[]string) {
	var changes []string
	return Target{Root: root, Changed: func(what, name string) { changes = append(changes, what+" "+name) }}, &changes
}

var machines = []struct {
	name  string
	files []string
	// made is what installing the hub reports.
	made []string
}{
	{"systemd", []string{"usr/lib/systemd/systemd", "etc/systemd/system/multi-user.target.wants/ssh.service", "etc/init.d/"}, []string{
		"written /usr/local/bin/petrel", "written /etc/petrel/hub.yaml", "written /etc/systemd/system/petrel-hub.service",
		"linked /etc/systemd/system/multi-user.target.wants/petrel-hub.service"}},
	{"openrc", []string{"sbin/openrc-run", "etc/init.d/", "etc/runlevels/default/"}, []string{
		"written /usr/local/bin/petrel", "written /etc/petrel/hub.yaml", "written /etc/init.d/petrel-hub", "linked /etc/runlevels/default/petrel-hub"}},
	{"runlevels", []string{"etc/init.d/", "etc/rc0.d/", "etc/rc2.d/", "etc/rc3.d/"}, []string{
		"written /usr/local/bin/petrel", "written /etc/petrel/hub.yaml", "written /etc/init.d/petrel-hub",
		"linked /etc/rc0.d/K10petrel-hub", "linked /etc/rc2.d/S90petrel-hub", "linked /etc/rc3.d/S90petrel-hub"}},
	{"busybox", []string{"etc/init.d/"}, []string{
		"written /usr/local/bin/petrel", "written /etc/petrel/hub.yaml", "written /etc/init.d/petrel-hub", "linked /etc/init.d/S90petrel-hub"}},
}

// TestInstall goes through the life of both services on an image of each init system: installed, installed again, upgraded,
// changed, taken away without a trace.
func TestInstall(t *testing.T) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			ctx, root := t.Context(), image(t, m.files...)
			before := list(t, root)
			first := write(t, filepath.Join(t.TempDir(), "petrel"), "first")
			tg, changes := target(root)
			step := func(s Service, want ...string) {
				t.Helper()
				*changes = nil
				if err := tg.Install(ctx, s); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(*changes, want) {
					t.Errorf("changes %q, want %q", *changes, want)
				}
			}
			hub := Service{Role: "hub", Binary: first, Settings: map[string]any{"listen": ":7443"}}
			step(hub, m.made...)
			made := list(t, root)
			step(hub)
			step(Service{Role: "hub", Binary: first})
			if after := list(t, root); !maps.Equal(made, after) {
				t.Errorf("installing again has changed files")
			}
			if got := made["/usr/local/bin/petrel"]; got != "-rwxr-xr-x first" {
				t.Errorf("the binary is %q", got)
			}
			if got := made["/etc/petrel/hub.yaml"]; !strings.HasPrefix(got, "-rw------- #") || !strings.HasSuffix(got, "\nlisten: :7443\n") {
				t.Errorf("the settings are %q", got)
			}

			second := write(t, filepath.Join(t.TempDir(), "petrel"), "newer")
			step(Service{Role: "hub", Binary: second, Settings: map[string]any{"max-pods": "10"}}, "written /usr/local/bin/petrel", "written /etc/petrel/hub.yaml")
			made = list(t, root)
			if got := made["/usr/local/bin/petrel"]; got != "-rwxr-xr-x newer" {
				t.Errorf("the binary is %q", got)
			}
			if got := made["/etc/petrel/hub.yaml"]; !strings.HasSuffix(got, "\nlisten: :7443\nmax-pods: \"10\"\n") {
				t.Errorf("the settings are %q", got)
			}
			if _, ok := made["/usr/local/bin/petrel.new"]; ok {
				t.Error("petrel.new has stayed")
			}

			if err := tg.Install(ctx, Service{Role: "agent", Binary: second}); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, "var/lib/petrel/hub.db"), "data")
			if err := tg.Uninstall(ctx, true, "hub"); err == nil || !strings.Contains(err.Error(), "petrel-agent also has its data in /var/lib/petrel") {
				t.Errorf("purging what the agent may use: %v", err)
			}
			if err := tg.Uninstall(ctx, false, "hub"); err != nil {
				t.Fatal(err)
			}
			if tg.Installed("hub") || !tg.Installed("agent") || !tg.has(binary) {
				t.Error("the hub should be gone, the agent and the binary be there")
			}
			if err := tg.Uninstall(ctx, false, "agent"); err != nil {
				t.Fatal(err)
			}
			if !tg.has("/var/lib/petrel/hub.db") {
				t.Error("data went without --purge")
			}
			if err := tg.Uninstall(ctx, true, "agent"); err != nil {
				t.Fatal(err)
			}
			if after := list(t, root); !maps.Equal(before, after) {
				t.Errorf("left after uninstalling: %q, before: %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
			}
			*changes = nil
			if err := tg.Uninstall(ctx, true, "hub"); err != nil || len(*changes) > 0 {
				t.Errorf("uninstalling again: %v, %q", err, *changes)
			}
		})
	}
}

// TestTexts checks that what each init system reads names the role and the binary, and has no placeholder left; a shell reads the
// scripts.
func TestTexts(t *testing.T) {
	for _, s := range systems {
		for _, r := range Roles {
			text, err := s.text(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{binary, string(r), openFiles[r]} {
				if !strings.Contains(text, want) {
					t.Errorf("%s: %s: no %s", s.name, r, want)
				}
			}
			if strings.Contains(text, "ROLE") || strings.Contains(text, "FILES") {
				t.Errorf("%s: %s: a placeholder is left", s.name, r)
			}
			if s.name == "systemd" {
				continue
			}
			sh := exec.Command("sh", "-n")
			sh.Stdin = strings.NewReader(text)
			if out, err := sh.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v: %s", s.name, r, err, out)
			}
		}
	}
}

// TestSystem checks which init system is found, and that none is an error.
func TestSystem(t *testing.T) {
	for _, tc := range []struct {
		init, want string
		files      []string
	}{
		{"", "systemd", []string{"lib/systemd/systemd", "sbin/openrc-run"}},
		{"", "openrc", []string{"usr/sbin/openrc-run", "etc/init.d/"}},
		{"", "sysv", []string{"etc/init.d/"}},
		{"sysv", "sysv", []string{"lib/systemd/systemd"}},
		{"", "", nil},
		{"upstart", "", []string{"etc/init.d/"}},
	} {
		tg, _ := target(image(t, tc.files...))
		tg.Init = tc.init
		s, err := tg.system()
		if s.name != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%q, %v: %s, %v; want %s", tc.init, tc.files, s.name, err, tc.want)
		}
	}
}

// TestLinksDoNotLeadOut checks that an image whose directory is a link to one of this machine is refused, and nothing is made there.
func TestLinksDoNotLeadOut(t *testing.T) {
	root, outside := image(t, "etc/init.d/"), t.TempDir()
	if err := os.Remove(filepath.Join(root, "usr/local/bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "usr/local/bin")); err != nil {
		t.Fatal(err)
	}
	tg, _ := target(root)
	err := tg.Install(t.Context(), Service{Role: "hub", Binary: write(t, filepath.Join(t.TempDir(), "petrel"), "x")})
	if err == nil || !strings.Contains(err.Error(), "leads out of") {
		t.Errorf("error %v", err)
	}
	if left := list(t, outside); len(left) != 1 {
		t.Errorf("made outside: %q", left)
	}
}

// TestSettingsThatCannotBeRead checks that a file with mistakes is named and stays as it is.
func TestSettingsThatCannotBeRead(t *testing.T) {
	root := image(t, "etc/init.d/")
	file := write(t, filepath.Join(root, "etc/petrel/hub.yaml"), "listen: [\n")
	tg, _ := target(root)
	err := tg.Install(t.Context(), Service{Role: "hub", Binary: file, Settings: map[string]any{"listen": ":1"}})
	if err == nil || !strings.Contains(err.Error(), "hub.yaml") {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "listen: [\n" {
		t.Errorf("the file is %q", b)
	}
}

// TestCommands checks what is started and stopped for which change, on a machine that runs: commands are recorded, not run.
func TestCommands(t *testing.T) {
	for _, m := range []struct {
		files                                        []string
		started, again, upgraded, agentGone, hubGone string
	}{
		{[]string{"run/systemd/system/"},
			"systemctl daemon-reload, systemctl enable petrel-hub, systemctl restart petrel-hub",
			"systemctl daemon-reload, systemctl enable petrel-hub, systemctl start petrel-hub",
			"systemctl daemon-reload, systemctl enable petrel-hub, systemctl restart petrel-hub, " +
				"systemctl daemon-reload, systemctl enable petrel-agent, systemctl restart petrel-agent",
			"systemctl disable --now petrel-agent, /usr/local/bin/petrel agent --stop-pods, systemctl daemon-reload",
			"systemctl disable --now petrel-hub, systemctl daemon-reload"},
		{[]string{"sbin/openrc-run", "etc/init.d/"},
			"rc-service petrel-hub restart",
			"rc-service petrel-hub start",
			"rc-service petrel-hub restart, rc-service petrel-agent restart",
			"rc-service petrel-agent stop, /usr/local/bin/petrel agent --stop-pods",
			"rc-service petrel-hub stop"},
		{[]string{"etc/init.d/"},
			"/etc/init.d/petrel-hub restart",
			"/etc/init.d/petrel-hub start",
			"/etc/init.d/petrel-hub restart, /etc/init.d/petrel-agent restart",
			"/etc/init.d/petrel-agent stop, /usr/local/bin/petrel agent --stop-pods",
			"/etc/init.d/petrel-hub stop"},
	} {
		var ran []string
		tg, _ := target(image(t, m.files...))
		tg.Command = func(_ context.Context, name string, args ...string) error {
			ran = append(ran, strings.Join(append([]string{name}, args...), " "))
			return nil
		}
		step := func(do func() error, want string) {
			t.Helper()
			ran = nil
			if err := do(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(ran, ", "); got != want {
				t.Errorf("%s: ran\n%s, want\n%s", m.files[0], got, want)
			}
		}
		install := func(r Role, binary string) func() error {
			from := write(t, filepath.Join(t.TempDir(), "petrel"), binary)
			return func() error { return tg.Install(t.Context(), Service{Role: r, Binary: from}) }
		}
		uninstall := func(r Role) func() error { return func() error { return tg.Uninstall(t.Context(), false, r) } }
		step(install("hub", "first"), m.started)
		step(install("hub", "first"), m.again)
		step(install("agent", "first"), strings.ReplaceAll(m.started, "hub", "agent"))
		step(install("hub", "second"), m.upgraded)
		step(uninstall("agent"), m.agentGone)
		step(uninstall("agent"), "")

		// A service that cannot be stopped stays, for the next attempt.
		tg.Command = func(context.Context, string, ...string) error { return errors.New("exit status 5") }
		if err := tg.Uninstall(t.Context(), false, "hub"); err == nil || !strings.HasSuffix(err.Error(), ": exit status 5") || !tg.Installed("hub") {
			t.Errorf("error %v", err)
		}
		tg.Command = func(_ context.Context, name string, args ...string) error {
			ran = append(ran, strings.Join(append([]string{name}, args...), " "))
			return nil
		}
		step(uninstall("hub"), m.hubGone)
	}
}

// TestMountsBelow checks that only what is mounted inside of the directory counts.
func TestMountsBelow(t *testing.T) {
	table := "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" +
		"23 22 8:2 / /var/lib/petrel rw - ext4 /dev/sda2 rw\n" +
		"24 23 0:5 / /var/lib/petrel/agent/pods/1/volumes/a rw - tmpfs tmpfs rw\n" +
		"25 22 0:6 / /var/lib/petrels/x rw - tmpfs tmpfs rw\n" +
		"26 22 0:7 / /data/my\\040hub/x rw - tmpfs tmpfs rw\n"
	if got := mountsBelow(table, "/var/lib/petrel"); !slices.Equal(got, []string{"/var/lib/petrel/agent/pods/1/volumes/a"}) {
		t.Errorf("%q", got)
	}
	if got := mountsBelow(table, "/data/my hub"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// TestPurgeTakesBoth checks that each service's own data goes, and only that of the one that goes.
func TestPurgeTakesBoth(t *testing.T) {
	for _, roles := range [][]Role{{"agent"}, {"agent", "hub"}} {
		tg, _ := target(image(t, "etc/init.d/", "srv/hub/hub.db", "srv/node/agent/id"))
		from := write(t, filepath.Join(t.TempDir(), "petrel"), "x")
		for r, dir := range map[Role]string{"hub": "/srv/hub", "agent": "/srv/node"} {
			if err := tg.Install(t.Context(), Service{Role: r, Binary: from, Settings: map[string]any{"data-dir": dir}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := tg.Uninstall(t.Context(), true, roles...); err != nil {
			t.Fatal(err)
		}
		if both := len(roles) == 2; tg.has("/srv/node") || tg.has("/srv/hub") == both || tg.has(binary) == both || tg.Installed("hub") == both {
			t.Errorf("%s: wrong things are left", roles)
		}
	}
}

// TestPurgeLeavesTheMachine checks that a data directory that is much more than that is not removed.
func TestPurgeLeavesTheMachine(t *testing.T) {
	root := image(t, "etc/init.d/")
	write(t, filepath.Join(root, "etc/petrel/hub.yaml"), "data-dir: /var\n")
	tg, _ := target(root)
	if err := tg.Uninstall(t.Context(), true, "hub"); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("error %v", err)
	}
	if !tg.has("/var/lib") {
		t.Error("/var is gone")
	}
}

package ctrd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// rootWith makes a root directory with files of users and groups.
func rootWith(t *testing.T, passwd, group string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestIdentify(t *testing.T) {
	full := rootWith(t, "# users\nroot:x:0:0:root:/:/bin/sh\nalice:x:1234:1300:Alice:/:/bin/sh\nbroken:x:y:z\n1235:x:7:8::\n",
		"root:x:0:\nusers:x:1300:\nextra:x:1400:bob,alice\nalice:x:1500:alice\nodd\n")
	bare := t.TempDir()
	for _, c := range []struct {
		root, user, group string
		groups            bool
		want              identity
		err               string
	}{
		{full, "alice", "", true, identity{1234, 1300, []uint32{1400}}, ""},
		{full, "alice", "", false, identity{1234, 1300, nil}, ""},
		{full, "1234", "", true, identity{1234, 1300, []uint32{1400}}, ""},
		{full, "1234", "extra", true, identity{1234, 1400, []uint32{1400}}, ""},
		{full, "1234", "77", true, identity{1234, 77, []uint32{1400}}, ""},
		{full, "999", "", true, identity{999, 0, nil}, ""},
		{full, "1235", "", true, identity{1235, 0, nil}, ""}, // a number is never a name
		{full, "nobody", "", true, identity{}, `no user "nobody"`},
		{full, "alice", "none", true, identity{}, `no group "none"`},
		{full, "broken", "", true, identity{}, "no numbers"},
		{full, "2147483648", "", true, identity{}, "out of range"},
		{full, "-1", "", true, identity{}, "out of range"},
		{full, "0", "99999999999999999999", true, identity{}, "out of range"},
		{bare, "0", "", true, identity{0, 0, nil}, ""},
		{bare, "5", "6", true, identity{5, 6, nil}, ""},
		{bare, "alice", "", true, identity{}, "no user"},
	} {
		got, err := identify(c.root, c.user, c.group, c.groups)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s:%s: %v, want %q", c.user, c.group, err, c.err)
			}
		case err != nil || got.uid != c.want.uid || got.gid != c.want.gid || !slices.Equal(got.groups, c.want.groups):
			t.Errorf("%s:%s: %+v, %v, want %+v", c.user, c.group, got, err, c.want)
		}
	}
}

// hostileUserFiles are what an image can have in the place of a file of users.
var hostileUserFiles = map[string]func(path string) error{
	"fifo":    func(p string) error { return unix.Mkfifo(p, 0o644) },
	"device":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) },
	"huge":    func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, 1<<40)) },
	"outside": func(p string) error { return os.Symlink("../../../../../../../../etc/passwd", p) },
}

// TestHostileUserFiles checks that none of them makes the agent wait, fills its memory or shows it a file of its own.
func TestHostileUserFiles(t *testing.T) {
	for name, make := range hostileUserFiles {
		for _, file := range []string{"passwd", "group"} {
			root := rootWith(t, "", "")
			if err := make(filepath.Join(root, "etc", file)); errors.Is(err, unix.EPERM) {
				continue // a device needs root
			} else if err != nil {
				t.Fatal(err)
			}
			within(t, name, func() {
				id, err := identify(root, "0", "daemon", true)
				if err == nil || id.uid != 0 {
					t.Errorf("%s as %s: %+v, %v", name, file, id, err)
				}
			})
		}
	}
}

// TestHostileImage checks that containers of an image with a FIFO in the place of its users do not start, and do not wait.
func TestHostileImage(t *testing.T) {
	r := private(t)
	for name, link := range map[string]string{"fifo": "", "endless": "/dev/zero"} {
		if _, err := r.Import(t.Context(), hostileImage(t, "petrel.test/"+name+":1", link)); err != nil {
			t.Fatal(err)
		}
		sb, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: name, Hostname: "h"})
		if err != nil {
			t.Fatal(err)
		}
		defer removePod(t, r, name)
		within(t, "the start of an image with "+name, func() {
			_, err = r.Start(t.Context(), cruntime.ContainerSpec{PodUID: name, Name: "c", SandboxID: sb.ID, Image: "petrel.test/" + name + ":1", Command: []string{"/bin/true"}})
		})
		if link == "" && (!errors.Is(err, cruntime.ErrConfig) || !strings.Contains(err.Error(), "/etc/passwd cannot be used: not a regular file but a FIFO")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

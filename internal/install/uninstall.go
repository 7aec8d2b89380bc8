package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Uninstall stops services, ends the pods of the agent, and removes what Install made, in the order of the roles. The binary goes
// with the last service. With purge their data goes too, which no other service may have in the same directory.
func (t Target) Uninstall(ctx context.Context, purge bool, roles ...Role) error {
	if t.packaged() {
		return fmt.Errorf("uninstall: %w", errPackaged)
	}
	var data []string // of roles
	for _, r := range Roles {
		dir, err := t.DataDir(r)
		if err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		if slices.Contains(roles, r) && !slices.Contains(data, dir) {
			data = append(data, dir)
		}
	}
	for _, r := range Roles {
		dir, err := t.DataDir(r)
		if err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		if purge && !slices.Contains(roles, r) && t.Installed(r) && slices.Contains(data, dir) {
			return fmt.Errorf("uninstall: %s also has its data in %s: uninstall both, or leave --purge out", r.service(), dir)
		}
	}
	for _, r := range roles {
		if err := t.uninstall(ctx, r); err != nil {
			return fmt.Errorf("uninstall %s: %w", r, err)
		}
	}
	if purge {
		for _, dir := range data {
			if err := t.purge(dir); err != nil {
				return fmt.Errorf("uninstall: %w", err)
			}
		}
	}
	return nil
}

func (t Target) uninstall(ctx context.Context, r Role) error {
	for _, s := range systems {
		if !t.has(s.file(r)) || !t.describes(s, r) {
			continue
		}
		if err := t.removeService(ctx, s, r); err != nil {
			return err
		}
	}
	files := []string{settingsFile(r), "/var/log/" + r.service() + ".log", "/run/" + r.service() + ".pid"}
	if !slices.ContainsFunc(Roles, t.Installed) {
		files = append(files, binary)
	}
	for _, name := range files {
		if err := t.removeReported(name); err != nil {
			return err
		}
	}
	for _, dir := range []string{settingsDir, "/etc/systemd/system/multi-user.target.wants", "/run/petrel"} {
		if err := t.removeEmpty(dir); err != nil {
			return err
		}
	}
	return nil
}

// describes reports whether the file of a service is that of this init system: OpenRC's and the plain one have the same name.
func (t Target) describes(s initSystem, r Role) bool {
	b, err := os.ReadFile(filepath.Join(t.Root, s.file(r)))
	return err != nil || s.name == systemdInit.name || strings.HasPrefix(string(b), "#!/sbin/openrc-run") == (s.name == openRC.name)
}

func (t Target) removeService(ctx context.Context, s initSystem, r Role) error {
	if t.live() {
		if err := t.run(ctx, s.stop(r.service())); err != nil {
			return err
		}
		// Pods outlive the agent's service, which is what an upgrade needs. Now nobody would look after them.
		if r == "agent" && t.has(binary) {
			if err := t.run(ctx, [][]string{{binary, "agent", "--stop-pods"}}); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.links(t, r))) {
		if err := t.removeReported(name); err != nil {
			return err
		}
	}
	if err := t.removeReported(s.file(r)); err != nil {
		return err
	}
	if t.live() {
		return t.run(ctx, s.removed(r.service()))
	}
	return nil
}

func (t Target) removeReported(name string) error {
	was, err := t.remove(name)
	if was && err == nil {
		t.Changed("removed", name)
	}
	return err
}

// removeEmpty removes a directory that has nothing in it any more.
func (t Target) removeEmpty(name string) error {
	full, err := t.path(name)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(full)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return t.removeReported(name)
}

// purge removes a data directory. What is mounted below it may be another's, such as a directory of the machine that a pod has
// as a volume: then nothing is removed.
func (t Target) purge(dir string) error {
	if !filepath.IsAbs(dir) || strings.Count(dir, "/") < 2 {
		return fmt.Errorf("data directory %s: not removed: it is none of Petrel's own; remove its files by hand", dir)
	}
	full, err := t.path(dir)
	if err != nil {
		return err
	}
	if t.live() {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		if below := mountsBelow(string(mounts), full); len(below) > 0 {
			return fmt.Errorf("data directory %s: not removed: still mounted below it: %s; reboot, and remove it by hand", dir, strings.Join(below, ", "))
		}
	}
	if !t.has(dir) {
		return nil
	}
	if err := os.RemoveAll(full); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	t.Changed("removed", dir)
	return nil
}

// mountsBelow returns the mount points below a directory, of a table in the form of /proc/self/mountinfo.
func mountsBelow(table, dir string) (below []string) {
	for line := range strings.Lines(table) {
		// Blanks in names are written in octal, so that fields stay apart; prefixes are not changed by that but for dir's own.
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], strings.ReplaceAll(dir, " ", `\040`)+"/") {
			below = append(below, f[4])
		}
	}
	return below
}

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// binary is where the program is installed, as the units and scripts have it.
const binary = "/usr/local/bin/petrel"

// settingsDir is where hub and agent look for their settings.
const settingsDir = "/etc/petrel"

// defaultData is where hub and agent keep their state unless their settings say otherwise.
const defaultData = "/var/lib/petrel"

// Target is the machine or image that services are installed on.
type Target struct {
	// Root is "/" for this machine. Elsewhere lie the files of an image, for which nothing is started.
	Root string
	// Init is systemd, openrc or sysv; empty: what is found.
	Init string
	// Command runs a program of this machine until it ends; nil for images.
	Command func(ctx context.Context, name string, args ...string) error
	// Changed is called for each file that was written or removed, with its name on the target.
	Changed func(what, name string)
}

// live reports whether the target runs, so that services can be started on it.
func (t Target) live() bool { return t.Command != nil }

// Service is what is to be installed.
type Service struct {
	Role   Role
	Binary string // file to copy, which may be the installed one itself
	// Settings are added to those that are there, by the names of their flags; none leaves the file as it is.
	Settings map[string]any
}

// Installed reports whether the target has the service.
func (t Target) Installed(r Role) bool {
	made := slices.ContainsFunc(systems, func(s initSystem) bool { return t.has(s.file(r)) })
	return made || t.packaged() && slices.ContainsFunc(slices.Collect(maps.Keys(systemdInit.links(t, r))), t.has)
}

// Settings are those that the target has for the service, without any when there is no file.
func (t Target) Settings(r Role) (map[string]any, error) {
	full, err := t.path(settingsFile(r))
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(full)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", full, err)
	}
	return values, nil
}

func settingsFile(r Role) string { return settingsDir + "/" + string(r) + ".yaml" }

// Install makes the target have the service, which starts now, on this machine, and with the machine. After an error it can be
// called again.
func (t Target) Install(ctx context.Context, s Service) error {
	if t.packaged() {
		if err := t.installPackaged(ctx, s); err != nil {
			return fmt.Errorf("install %s: %w", s.Role, err)
		}
		return nil
	}
	system, err := t.system()
	if err != nil {
		return fmt.Errorf("install %s: %w", s.Role, err)
	}
	if err := t.install(ctx, system, s); err != nil {
		return fmt.Errorf("install %s: %w", s.Role, err)
	}
	return nil
}

func (t Target) install(ctx context.Context, system initSystem, s Service) error {
	newBinary, err := t.putBinary(s.Binary)
	if err != nil {
		return err
	}
	if newBinary {
		t.Changed("written", binary)
	}
	newSettings, err := t.putSettings(s)
	if err != nil {
		return err
	}
	text, err := system.text(s.Role)
	if err != nil {
		return err
	}
	newText, err := t.put(system.file(s.Role), []byte(text), system.mode)
	if err != nil {
		return err
	}
	if newText {
		t.Changed("written", system.file(s.Role))
	}
	links := system.links(t, s.Role)
	for _, name := range slices.Sorted(maps.Keys(links)) {
		made, err := t.link(name, links[name])
		if err != nil {
			return err
		}
		if made {
			t.Changed("linked", name)
		}
	}
	if !t.live() {
		return nil
	}
	commands := system.start(s.Role.service())
	if newBinary || newSettings || newText {
		commands = system.restart(s.Role.service())
	}
	// The other service runs the same binary.
	for _, r := range Roles {
		if newBinary && r != s.Role && t.has(system.file(r)) {
			commands = append(commands, system.restart(r.service())...)
		}
	}
	return t.run(ctx, commands)
}

// putSettings adds the service's settings to those of the target, and returns whether that changed them. Comments in the file are
// lost only then.
func (t Target) putSettings(s Service) (bool, error) {
	if len(s.Settings) == 0 && t.has(settingsFile(s.Role)) {
		return false, nil
	}
	old, err := t.Settings(s.Role)
	if err != nil {
		return false, err
	}
	next := maps.Clone(old)
	maps.Copy(next, s.Settings)
	before, err := yaml.Marshal(old)
	if err != nil {
		return false, err
	}
	after, err := yaml.Marshal(next)
	if err != nil {
		return false, err
	}
	if t.has(settingsFile(s.Role)) && string(before) == string(after) {
		return false, nil
	}
	head := "# Settings of petrel " + string(s.Role) + ": each is a flag of it without the dashes. See petrel " + string(s.Role) + " --help.\n"
	if len(next) == 0 {
		after = nil
	}
	changed, err := t.put(settingsFile(s.Role), append([]byte(head), after...), 0o600)
	if changed && err == nil {
		t.Changed("written", settingsFile(s.Role))
	}
	return changed, err
}

func (t Target) run(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		if err := t.Command(ctx, c[0], c[1:]...); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(c, " "), err)
		}
	}
	return nil
}

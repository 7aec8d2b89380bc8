package install

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// binary is where the program is installed, as the units and scripts have it.
const binary = "/usr/local/bin/petrel"

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
	// Settings are added to those that are there, by the names of their flags; one that is nil is taken out. None leaves the file as it is.
	Settings map[string]any
}

// Installed reports whether the target has the service.
func (t Target) Installed(r Role) bool {
	made := slices.ContainsFunc(systems, func(s initSystem) bool { return t.has(s.file(r)) })
	return made || t.packaged() && slices.ContainsFunc(slices.Collect(maps.Keys(systemdInit.links(t, r))), t.has)
}

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

func (t Target) run(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		if err := t.Command(ctx, c[0], c[1:]...); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(c, " "), err)
		}
	}
	return nil
}

package install

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"petrel.dev/petrel/cross-build/systemd"
)

// Role is one of the two services.
type Role string

// Roles are the services that there are.
var Roles = []Role{"hub", "agent"}

// service is its name for every init system.
func (r Role) service() string { return "petrel-" + string(r) }

// openFiles is how many files each may have open: as the units for systemd say.
var openFiles = map[Role]string{"hub": "65536", "agent": "1048576"}

//go:embed openrc sysv
var scripts embed.FS

// initSystem starts and stops services. Names of files are absolute, below the target's root.
type initSystem struct {
	name string
	mode fs.FileMode // of the service's file
	// file is where a service is described, text how.
	file func(r Role) string
	text func(r Role) (string, error)
	// links are the names by which the service starts with the machine, and what each leads to.
	links func(t Target, r Role) map[string]string
	// Commands, each with its arguments.
	start, restart, stop, removed func(service string) [][]string
}

// systems are looked for in this order.
var systems = []initSystem{systemdInit, openRC, plainInit}

var systemdInit = initSystem{
	name: "systemd", mode: 0o644,
	file: func(r Role) string { return "/etc/systemd/system/" + r.service() + ".service" },
	text: func(r Role) (string, error) {
		b, err := fs.ReadFile(systemd.Units, r.service()+".service")
		return string(b), err
	},
	links: func(_ Target, r Role) map[string]string {
		unit := r.service() + ".service"
		return map[string]string{"/etc/systemd/system/multi-user.target.wants/" + unit: "/etc/systemd/system/" + unit}
	},
	start: func(s string) [][]string {
		return [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", s}, {"systemctl", "start", s}}
	},
	restart: func(s string) [][]string {
		return [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", s}, {"systemctl", "restart", s}}
	},
	stop:    func(s string) [][]string { return [][]string{{"systemctl", "disable", "--now", s}} },
	removed: func(string) [][]string { return [][]string{{"systemctl", "daemon-reload"}} },
}

var openRC = initSystem{
	name: "openrc", mode: 0o755,
	file: func(r Role) string { return "/etc/init.d/" + r.service() },
	text: func(r Role) (string, error) { return script("openrc", r) },
	links: func(_ Target, r Role) map[string]string {
		return map[string]string{"/etc/runlevels/default/" + r.service(): "/etc/init.d/" + r.service()}
	},
	start:   func(s string) [][]string { return [][]string{{"rc-service", s, "start"}} },
	restart: func(s string) [][]string { return [][]string{{"rc-service", s, "restart"}} },
	stop:    func(s string) [][]string { return [][]string{{"rc-service", s, "stop"}} },
	removed: func(string) [][]string { return nil },
}

var plainInit = initSystem{
	name: "sysv", mode: 0o755,
	file:    func(r Role) string { return "/etc/init.d/" + r.service() },
	text:    func(r Role) (string, error) { return script("sysv", r) },
	links:   runlevels,
	start:   func(s string) [][]string { return [][]string{{"/etc/init.d/" + s, "start"}} },
	restart: func(s string) [][]string { return [][]string{{"/etc/init.d/" + s, "restart"}} },
	stop:    func(s string) [][]string { return [][]string{{"/etc/init.d/" + s, "stop"}} },
	removed: func(string) [][]string { return nil },
}

// script fills one of the scripts in.
func script(name string, r Role) (string, error) {
	b, err := scripts.ReadFile(name)
	return strings.NewReplacer("ROLE", string(r), "FILES", openFiles[r]).Replace(string(b)), err
}

// runlevels are the links of System V's runlevels; of BusyBox, whose rcS runs what begins with S, where there are none.
func runlevels(t Target, r Role) map[string]string {
	out := map[string]string{}
	for _, level := range "0123456" {
		dir := "/etc/rc" + string(level) + ".d"
		if !t.has(dir) {
			continue
		}
		name := "S90" + r.service()
		if strings.ContainsRune("016", level) {
			name = "K10" + r.service()
		}
		out[path.Join(dir, name)] = "../init.d/" + r.service()
	}
	if len(out) == 0 {
		out["/etc/init.d/S90"+r.service()] = r.service()
	}
	return out
}

// system returns the init system of the target: what runs there, or in an image what would.
func (t Target) system() (initSystem, error) {
	for _, s := range systems {
		if t.Init == s.name {
			return s, nil
		}
	}
	switch {
	case t.Init != "":
		return initSystem{}, fmt.Errorf("init system %q is not one of systemd, openrc, sysv", t.Init)
	case t.has("/run/systemd/system"), !t.live() && (t.has("/lib/systemd/systemd") || t.has("/usr/lib/systemd/systemd")):
		return systemdInit, nil
	case t.has("/sbin/openrc-run"), t.has("/usr/sbin/openrc-run"):
		return openRC, nil
	case t.has("/etc/init.d"):
		return plainInit, nil
	}
	return initSystem{}, errors.New("no init system was found: neither systemd runs, nor is there OpenRC or /etc/init.d; name one with --init, or start `petrel hub` or `petrel agent` your own way")
}

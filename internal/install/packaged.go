package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// packageBinary is where a package of the distribution has the program.
const packageBinary = "/usr/bin/petrel"

// packageUnit is where a package has a service's unit.
func packageUnit(r Role) string { return "/usr/lib/systemd/system/" + r.service() + ".service" }

// packaged reports whether the target has petrel from a package, whose binary and units are the package manager's. What `petrel install`
// places elsewhere would hide them: upgrades of the package would not reach the services.
func (t Target) packaged() bool {
	return t.has(packageBinary) && slices.ContainsFunc(Roles, func(r Role) bool { return t.has(packageUnit(r)) })
}

// errPackaged is what taking a packaged service away ends with.
var errPackaged = errors.New("petrel is a package here: `systemctl disable --now SERVICE` stops a service, and the package manager removes the package")

// installPackaged makes a service of the package start, now and with the machine. Only its settings are written.
func (t Target) installPackaged(ctx context.Context, s Service) error {
	of, err := t.fromPackage(s.Binary)
	if err != nil {
		return err
	}
	if !of {
		return fmt.Errorf("petrel is a package here, and %s is another binary: run %s install, or upgrade the package", s.Binary, packageBinary)
	}
	newSettings, err := t.putSettings(s)
	if err != nil {
		return err
	}
	for wants := range systemdInit.links(t, s.Role) {
		made, err := t.link(wants, packageUnit(s.Role))
		if err != nil {
			return err
		}
		if made {
			t.Changed("linked", wants)
		}
	}
	if !t.live() {
		return nil
	}
	if newSettings {
		return t.run(ctx, systemdInit.restart(s.Role.service()))
	}
	return t.run(ctx, systemdInit.start(s.Role.service()))
}

// fromPackage reports whether the file is the package's binary, or has the same content.
func (t Target) fromPackage(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return sameContent(f, filepath.Join(t.Root, packageBinary))
}

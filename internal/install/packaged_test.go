package install

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPackaged checks that a package's services are only set up and started: nothing is placed that would hide the package's files, and
// nothing of it is taken away.
func TestPackaged(t *testing.T) {
	root := image(t, "usr/lib/systemd/systemd", "usr/bin/petrel", "usr/lib/systemd/system/petrel-hub.service", "usr/lib/systemd/system/petrel-agent.service")
	tg, changes := target(root)
	before := list(t, root)

	other := write(t, filepath.Join(t.TempDir(), "petrel"), "another")
	if err := tg.Install(t.Context(), Service{Role: "hub", Binary: other}); err == nil || !strings.Contains(err.Error(), "another binary") {
		t.Errorf("another binary's install: %v", err)
	}
	if after := list(t, root); len(after) != len(before) {
		t.Errorf("a refusal changes something: %v", after)
	}
	hub := Service{Role: "hub", Binary: filepath.Join(root, "usr/bin/petrel"), Settings: map[string]any{"listen": ":7443"}}
	if tg.Installed("hub") {
		t.Error("the package alone counts as an installed service")
	}
	for i, want := range [][]string{{"written /etc/petrel/hub.yaml", "linked /etc/systemd/system/multi-user.target.wants/petrel-hub.service"}, nil} {
		*changes = nil
		if err := tg.Install(t.Context(), hub); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(*changes, want) {
			t.Errorf("time %d: changes %q, want %q", i, *changes, want)
		}
	}
	if !tg.Installed("hub") || tg.Installed("agent") {
		t.Error("the hub is installed, and the agent is not")
	}
	if got := list(t, root)["/etc/systemd/system/multi-user.target.wants/petrel-hub.service"]; !strings.HasSuffix(got, " /usr/lib/systemd/system/petrel-hub.service") {
		t.Errorf("the link of the service: %q", got)
	}
	made := list(t, root)
	if err := tg.Uninstall(t.Context(), true, "hub"); !errors.Is(err, errPackaged) {
		t.Errorf("uninstall: %v", err)
	}
	if after := list(t, root); len(after) != len(made) {
		t.Errorf("uninstall takes something of the package away: %v", after)
	}
}

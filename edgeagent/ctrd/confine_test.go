package ctrd

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// TestLeastScore checks that the score goes as far down as the kernel lets it.
func TestLeastScore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oom_score_adj")
	for before, want := range map[string]int{"0": -999, "500": -999, "-999": -999, "-1000": -1000} {
		if err := os.WriteFile(file, []byte(before+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := leastScore(file); got != want || err != nil {
			t.Errorf("from %s: %d, %v; want %d", before, got, err, want)
		}
	}
	// The kernel's own: where this process may not go down to the least, what it found is the bound.
	got, err := leastScore("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(got) {
		t.Errorf("found %d, it is %s, %v", got, b, err)
	}
	if got > agentOOMScore {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(got-1)), 0o644); err == nil {
			t.Errorf("%d is not the least: one less works", got)
		}
	}
}

// TestAppArmor checks that where the kernel has it a container is confined, by the profile that it names if that is loaded.
func TestAppArmor(t *testing.T) {
	r := &Runtime{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	broken := false
	load := func(string) error {
		if broken {
			return errors.New("apparmor_parser failed")
		}
		return nil
	}
	for _, tt := range []struct {
		name      string
		s         cruntime.Security
		supported bool
		confined  bool
		err       string
	}{
		{"no AppArmor", cruntime.Security{}, false, false, ""},
		{"default", cruntime.Security{}, true, true, ""},
		{"default, broken", cruntime.Security{}, true, false, ""},
		{"asked for", cruntime.Security{AppArmorDefault: true}, true, true, ""},
		{"asked for, broken", cruntime.Security{AppArmorDefault: true}, true, false, "cannot be loaded"},
		{"unconfined", cruntime.Security{AppArmorUnconfined: true}, true, false, ""},
		{"privileged", cruntime.Security{Privileged: true, AppArmorProfile: "x"}, true, false, ""},
		{"unknown", cruntime.Security{AppArmorProfile: "no-such-profile"}, true, false, "AppArmor"},
	} {
		broken = strings.HasSuffix(tt.name, "broken")
		opt, err := r.appArmor(tt.s, tt.supported, load)
		if (opt != nil) != tt.confined || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: confined %v, %v", tt.name, opt != nil, err)
		}
	}
	list := []byte("petrel-default (enforce)\n/usr/bin/man (enforce)\nspaced name (complain)\n")
	for name, want := range map[string]bool{"petrel-default": true, "/usr/bin/man": true, "spaced name": true, "petrel": false, "petrel-default (enforce)": false, "": false} {
		if profileLoaded(list, name) != want {
			t.Errorf("%q: loaded %v", name, !want)
		}
	}
}

// TestNoSeccomp checks that on a kernel without seccomp filters those run without who have not asked for the default profile.
func TestNoSeccomp(t *testing.T) {
	for _, tt := range []struct {
		enabled, asked, confined, refused bool
	}{
		{true, true, true, false}, {true, false, true, false}, {false, true, false, true}, {false, false, false, false},
	} {
		spec := &oci.Spec{Linux: &specs.Linux{}, Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
		err := defaultSeccomp(tt.enabled, tt.asked)(t.Context(), nil, nil, spec)
		if (spec.Linux.Seccomp != nil) != tt.confined || errors.Is(err, cruntime.ErrConfig) != tt.refused || err != nil && !tt.refused {
			t.Errorf("%+v: %+v, %v", tt, spec.Linux.Seccomp, err)
		}
	}
}

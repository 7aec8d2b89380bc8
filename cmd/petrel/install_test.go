//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/defaults"
)

// TestInstalledSettingsAreTheFlags checks that hub and agent read from the file that petrel install writes what its flags said.
func TestInstalledSettingsAreTheFlags(t *testing.T) {
	parse := func(dir string, args ...string) *program {
		t.Helper()
		var p program
		parser, err := kong.New(&p, kong.Name("petrel"), kong.Resolvers(configFiles(dir)),
			kong.ExplicitGroups([]kong.Group{{Key: "machine"}, {Key: "fleet"}}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(args); err != nil {
			t.Fatal(err)
		}
		return &p
	}
	for _, flags := range [][]string{
		{"hub", "--listen=:7443", "--advertise=a.lan,10.0.0.5", "--max-pods=1000000", "--encrypt-secrets", "--data-dir=/srv/a b", "--log-level=warn"},
		{"agent", "--join=" + joinToken(t), "--cache-key-file=/srv/a=b:c#d", "--label=x=1,y=", "--taint=a=b:NoSchedule,c:NoExecute", "--no-keep-pods", "--pod-pids-limit=-1", "--disk-floor=5%"},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "etc/init.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"install", flags[0], "--root=" + root}, flags[1:]...)
		if code := run(args, &cli.Streams{Out: io.Discard, Err: os.Stderr}); code != 0 {
			t.Fatalf("petrel %q: exit code %d", args, code)
		}
		want, got := parse(t.TempDir(), flags...), parse(filepath.Join(root, "etc/petrel"), flags[0])
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%q: want %+v, got %+v", flags, want.machineCommands, got.machineCommands)
		}
	}
}

// TestSettingsThatAreNone checks that a file of settings with a mistake is to blame, and no flag, and that what was meant is named.
func TestSettingsThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"lisen: :1\n":            `hub.yaml: "lisen" is no setting of petrel hub, whose flags are the settings; did you mean "listen"?`,
		"zzzzzz: 1\nyyyyyy: 1\n": `hub.yaml: "yyyyyy" is no setting of petrel hub, whose flags are the settings`,
		"listen: [\n":            "hub.yaml: error converting YAML",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "hub.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var p program
		parser, err := kong.New(&p, kong.Name("petrel"), kong.Resolvers(configFiles(dir)), kong.ExplicitGroups([]kong.Group{{Key: "machine"}, {Key: "fleet"}}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser.Parse([]string{"hub"})
		if file, ok := errors.AsType[*defaults.Error](err); !ok || !strings.HasPrefix(strings.TrimPrefix(file.Error(), dir+"/"), want) || strings.Contains(file.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

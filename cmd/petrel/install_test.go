//go:build linux

package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli"
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

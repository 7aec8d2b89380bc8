package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/jointoken"
)

// TestMain lets scripts run petrel as a command of their own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"petrel": func() { os.Exit(run(os.Args[1:], &cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})) },
	})
}

// joinToken makes a token of a hub that is not there.
func joinToken(t *testing.T) string {
	t.Helper()
	token, _, err := jointoken.Mint(jointoken.Cluster{ID: "test", Addresses: []string{"127.0.0.1:1"}}, jointoken.Options{}, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

// examples is where scripts find the examples of the repository.
const examples = "../../examples"

// TestScripts holds what a person meets at the prompt, where no cluster is needed for it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			dir, err := filepath.Abs(examples)
			if err != nil {
				return err
			}
			e.Setenv("EXAMPLES", dir)
			// Two join tokens, $ONE and $TWO, which are also the files one and two in $TOKENS.
			tokens := t.TempDir()
			e.Setenv("TOKENS", tokens)
			for _, name := range []string{"one", "two"} {
				token := joinToken(t)
				e.Setenv(strings.ToUpper(name), token)
				if err := os.WriteFile(filepath.Join(tokens, name), []byte(token+"\n"), 0o600); err != nil {
					return err
				}
			}
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("PETREL_DATA_DIR", e.WorkDir+"/none")
			return nil
		},
	})
}

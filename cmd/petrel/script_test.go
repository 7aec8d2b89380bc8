package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"petrel.dev/petrel/internal/cli"
)

// TestMain lets scripts run petrel as a command of their own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"petrel": func() { os.Exit(run(os.Args[1:], &cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})) },
	})
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
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("PETREL_DATA_DIR", e.WorkDir+"/none")
			return nil
		},
	})
}

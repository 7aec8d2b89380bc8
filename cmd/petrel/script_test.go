package main

import (
	"os"
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

// TestScripts holds what a person meets at the prompt, where no cluster is needed for it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("PETREL_DATA_DIR", e.WorkDir+"/none")
			return nil
		},
	})
}

package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestFlagsFirst(t *testing.T) {
	parser, err := kong.New(&program{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"get pod -n web web-1", "get -n web pod web-1"},
		{"get pod -nweb web-1", "get -nweb pod web-1"},
		{"get pod --namespace=web web-1 -w", "get --namespace=web -w pod web-1"},
		{"label pods -l app=web tier=front old-", "label -l app=web pods tier=front old-"},
		{"label pods --all tier=front", "label --all pods tier=front"},
		{"get pods -Aw x", "get -Aw pods x"},
		{"get pods -An web x", "get -An web pods x"},
		{"token ls -n x", "token ls -n x"},
		{"delete pod --no-wait a -- -b", "delete --no-wait pod a -- -b"},
		{"get pods --outptu=yaml x", "get --outptu=yaml pods x"}, // the parser shall name it
		{"image import --data-dir d -", "image import --data-dir d -"},
		{"exec web -c main -- ls -l", "exec web -c main -- ls -l"}, // the command's own flags stay with it
		{"exec web ls -l", "exec web ls -l"},
		{"scale deployment/web --replicas", "scale deployment/web --replicas"},
		{"get", "get"},
		{"", ""},
	} {
		if got := strings.Join(flagsFirst(parser.Model, strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("petrel %s: read as %q, want %q", c.args, got, c.want)
		}
	}
}

func TestCommandFirst(t *testing.T) {
	parser, err := kong.New(&program{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"-n web get pods", "get -n web pods"},
		{"--kubeconfig f --context=c rollout status deploy/web", "rollout status --kubeconfig f --context=c deploy/web"},
		{"-nweb exec p -- ls -n", "exec -nweb p -- ls -n"},
		{"-n web rollout stauts deploy/web", "rollout stauts deploy/web -n web"}, // the parser shall name stauts
		{"-n web gte pods", "gte pods -n web"},
		{"-A get pods", "-A get pods"},       // the parser shall name it
		{"-n web hub", "hub -n web"},         // likewise
		{"--kubeconfig f", "--kubeconfig f"}, // no command
		{"-n", "-n"},                         // no value
		{"get -n web pods", "get -n web pods"},
		{"", ""},
	} {
		if got := strings.Join(commandFirst(parser.Model, strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("petrel %s: read as %q, want %q", c.args, got, c.want)
		}
	}
}

// The parser names the flag that it does not know, not what stands around it.
func TestUnknownFlagIsNamed(t *testing.T) {
	parser, err := kong.New(&program{})
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"label cm --all a=b --nope=1": "unknown flag --nope",
		"get pods -n":                 "--namespace needs a value",
		"cordon":                      "an argument is missing: nodes",
		"delete cm x -o yaml":         `--output must be one of "name" but got "yaml"`,
	} {
		_, err := parser.Parse(flagsFirst(parser.Model, strings.Fields(args)))
		if err == nil || !strings.Contains(plainly(err), want) {
			t.Errorf("petrel %s: %v, want %q", args, err, want)
		}
	}
}

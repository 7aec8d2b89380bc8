package nodename

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"
)

var pi = fstest.MapFS{
	"proc/device-tree/model":              {Data: []byte("Raspberry Pi 4 Model B Rev 1.4\x00")},
	"proc/device-tree/serial-number":      {Data: []byte("10000000A1B2C3D4\x00")},
	"proc/sys/kernel/hostname":            {Data: []byte("Shed.lan\n")},
	"etc/machine-id":                      {Data: []byte("0123456789abcdef0123456789abcdef\n")},
	"sys/class/net/eth0/address":          {Data: []byte("dc:a6:32:01:02:0f\n")},
	"sys/class/net/eth0/type":             {Data: []byte("1\n")},
	"sys/class/net/eth0/addr_assign_type": {Data: []byte("0\n")},
	"sys/class/net/eth0/device/uevent":    {},
}

// TestNames checks what each field stands for, and that the hub recognises what the agent makes.
func TestNames(t *testing.T) {
	for pattern, want := range map[Pattern]string{
		"pi-{serial}":          "pi-10000000a1b2c3d4",
		"{mac}":                "dca63201020f",
		"n{machine-id}":        "n0123456789ab",
		"{hostname}":           "shed.lan",
		"{hostname}.roof":      "shed.lan.roof",
		"{model}-x-{serial}":   "raspberry-pi-4-model-b-rev-1-4-x-10000000a1b2c3d4",
		"plain":                "plain",
		"site-7.pi-{mac}-edge": "site-7.pi-dca63201020f-edge",
	} {
		got, err := pattern.Name(pi)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", pattern, got, err, want)
		}
		if !pattern.Matches(got) {
			t.Errorf("%s does not match its own %q", pattern, got)
		}
	}
}

// TestRefusals checks that a pattern that cannot be, and one of which this machine lacks a field, are refused with the way out.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ pattern, text string }{
		{"pi-{seriel}", "no field {seriel}; fields are {serial}, {mac}, {machine-id}, {hostname}, {model}"},
		{"pi-{serial", "no field {serial}"}, // not closed
		{"pi-serial}", "a } without a {"},
		{"Pi-{serial}", "lowercase RFC 1123"},
		{"-{serial}", "lowercase RFC 1123"},
		{"{serial}-", "lowercase RFC 1123"},
		{"", "lowercase RFC 1123"},
		{strings.Repeat("a", 129), "are too many"},
		{strings.Repeat("a", 50) + "-{serial}", "67 characters, and 63 are the most"},
	} {
		if _, err := Pattern(tc.pattern).Name(pi); err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%q: %v, want … %s …", tc.pattern, err, tc.text)
		}
	}
	for field, text := range map[Pattern]string{
		"{serial}": "use {mac} or {machine-id}", "{mac}": "use {serial} or {machine-id}", "{machine-id}": "systemd-machine-id-setup", "{hostname}": "hostnamectl", "{model}": "nor DMI",
	} {
		if _, err := field.Name(fstest.MapFS{}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s on a machine of which nothing is known: %v, want … %s …", field, err, text)
		}
	}
}

// TestMatches checks that only names of a pattern's form are taken: the hub refuses the others.
func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern Pattern
		name    string
		want    bool
	}{
		{"pi-{serial}", "pi-1", true},
		{"pi-{serial}", "pi-", false},
		{"pi-{serial}", "api-1", false},
		{"pi-{serial}", "pi-a.b", false},
		{"pi-{serial}", "pi--a", false},
		{"pi-{mac}", "pi-dca63201020f", true},
		{"pi-{mac}", "pi-dca63201020", false},
		{"a.{hostname}", "a.b.c", true},
		{"a.{hostname}", "axb", false},
		{"{nonsense}", "a", false},
		{"pi-{serial}", "pi-" + strings.Repeat("a", 61), false},
	} {
		if got := tc.pattern.Matches(tc.name); got != tc.want {
			t.Errorf("%s matches %q: %v", tc.pattern, tc.name, got)
		}
	}
}

// TestAnyMachine checks that a name that is made is one that Kubernetes takes and the pattern matches, whatever firmware says.
func TestAnyMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := fstest.MapFS{}
		for _, file := range []string{"proc/device-tree/model", "proc/device-tree/serial-number", "proc/sys/kernel/hostname", "etc/machine-id"} {
			root[file] = &fstest.MapFile{Data: []byte(rapid.String().Draw(t, file))}
		}
		for _, pattern := range []Pattern{"{serial}", "a-{model}", "{hostname}", "x{machine-id}y", "{hostname}.{model}"} {
			name, err := pattern.Name(root)
			if err == nil && (!pattern.Matches(name) || Pattern(name).Check() != nil) {
				t.Errorf("%s is %q", pattern, name)
			}
		}
	})
}

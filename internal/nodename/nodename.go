// Package nodename makes the names of a fleet's nodes from one pattern, such as pi-{serial}, so that the same card or the same
// settings serve every board. The agent makes the name, pi-10000000a1b2c3d4 on one board; the hub, which cannot see the board,
// checks that a name has the pattern's form.
package nodename

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/internal/board"
)

// Pattern is a node's name with fields in braces, each of which stands for something of the machine. Without a field it is a name.
type Pattern string

// short is how many digits of a machine id are in a name: enough for a fleet, and not the whole, which machine-id(5) asks to keep.
const short = 12

// field is one that a pattern may have.
type field struct {
	form    string // of what it stands for, as a regular expression
	value   func(root fs.FS) string
	missing string // why a machine may have none, and what to use then
}

// label is the form of what plain makes.
const label = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"

// fields are by their names, as in fieldNames.
var fields = map[string]field{
	"serial": {label, func(root fs.FS) string { return plain(board.Serial(root)) },
		"neither its device tree, nor /proc/cpuinfo, nor DMI (which only root may read) has a serial number; use {mac} or {machine-id}"},
	"mac": {"[0-9a-f]{12}", func(root fs.FS) string { return strings.ReplaceAll(board.MAC(root), ":", "") },
		"it has no physical network interface with an address of its own; use {serial} or {machine-id}"},
	"machine-id": {"[a-z0-9]{1,12}", func(root fs.FS) string {
		id := strings.ReplaceAll(plain(board.MachineID(root)), "-", "")
		return id[:min(len(id), short)]
	},
		"/etc/machine-id is empty; systemd-machine-id-setup makes one"},
	"hostname": {"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", func(root fs.FS) string { return board.Slug(board.Hostname(root)) },
		"it has no host name; set one with hostnamectl"},
	"model": {label, func(root fs.FS) string { return plain(board.Model(root)) },
		"neither a device tree nor DMI names its model"},
}

// fieldNames is what an error offers.
const fieldNames = "{serial}, {mac}, {machine-id}, {hostname}, {model}"

// plain returns a text as one part of a host name: no dots.
func plain(s string) string { return strings.ReplaceAll(board.Slug(s), ".", "-") }

// IsPlain reports whether the pattern is a name already.
func (p Pattern) IsPlain() bool { return !strings.ContainsAny(string(p), "{}") }

// maxPattern bounds a pattern in bytes: the hub keeps it, and makes a regular expression of it.
const maxPattern = 128

// Check returns what is wrong with the pattern, and what would be right.
func (p Pattern) Check() error {
	if len(p) > maxPattern {
		return fmt.Errorf("node name %.40q…: %d bytes are too many, %d are the most", string(p), len(p), maxPattern)
	}
	example, err := p.fill(asIs, func(string) (string, error) { return "x", nil })
	if err != nil {
		return err
	}
	if problems := validation.IsDNS1123Subdomain(example); len(problems) > 0 {
		return fmt.Errorf("node name %q: %s", string(p), problems[0])
	}
	return nil
}

// asIs is for fill, where the text between fields stays what it is.
func asIs(text string) string { return text }

// fill puts values in the place of fields, and what literal makes of it in the place of each text between them.
func (p Pattern) fill(literal func(text string) string, value func(field string) (string, error)) (string, error) {
	var out strings.Builder
	rest := string(p)
	for {
		before, after, found := strings.Cut(rest, "{")
		if strings.Contains(before, "}") {
			return "", fmt.Errorf("node name %q: a } without a {; fields are %s", string(p), fieldNames)
		}
		out.WriteString(literal(before))
		if !found {
			return out.String(), nil
		}
		name, behind, closed := strings.Cut(after, "}")
		if _, ok := fields[name]; !closed || !ok {
			return "", fmt.Errorf("node name %q: there is no field {%s}; fields are %s", string(p), name, fieldNames)
		}
		v, err := value(name)
		if err != nil {
			return "", err
		}
		out.WriteString(v)
		rest = behind
	}
}

// ErrMissing is a pattern with a field that this machine does not have.
var ErrMissing = errors.New("this machine has nothing to put there")

// maxName bounds a name in bytes: it is also the value of the label kubernetes.io/hostname.
const maxName = validation.LabelValueMaxLength

// Name returns the name of the machine whose files are below root.
func (p Pattern) Name(root fs.FS) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	name, err := p.fill(asIs, func(f string) (string, error) {
		if v := fields[f].value(root); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("node name %q: {%s}: %w: %s", string(p), f, ErrMissing, fields[f].missing)
	})
	switch {
	case err != nil:
		return "", err
	case len(name) > maxName:
		return "", fmt.Errorf("node name %q is %q on this machine: %d characters, and %d are the most", string(p), name, len(name), maxName)
	}
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return "", fmt.Errorf("node name %q is %q on this machine: %s", string(p), name, problems[0])
	}
	return name, nil
}

// Matches reports whether the pattern can have made the name.
func (p Pattern) Matches(name string) bool {
	form, err := p.fill(regexp.QuoteMeta, func(f string) (string, error) { return "(" + fields[f].form + ")", nil })
	if err != nil {
		return false
	}
	re, err := regexp.Compile("^" + form + "$")
	return err == nil && len(name) <= maxName && re.MatchString(name)
}

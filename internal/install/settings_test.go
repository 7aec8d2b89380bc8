package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestForgetToken checks that the token leaves the settings, and nothing else does.
func TestForgetToken(t *testing.T) {
	const token = "petrel1.AbC-d_e"
	for _, c := range []struct{ name, before, after string }{
		{"as petrel install writes it", "# Settings.\njoin: petrel1.AbC-d_e\nlabel:\n- a=b\n", "# Settings.\nlabel:\n- a=b\n"},
		{"alone", "# Settings.\njoin: petrel1.AbC-d_e\n", "# Settings.\n"},
		{"with a person's comments", "node-name: pi # mine\n\n# for the first start\n\"join\": 'petrel1.AbC-d_e' # until spring\n# the last\nlog-level: warn",
			"node-name: pi # mine\n\n# for the first start\n# the last\nlog-level: warn"},
		{"over several lines", "join: >-\n  petrel1.AbC\n  -d_e\nlog-level: warn\n", "log-level: warn\n"},
		{"a word in a comment and in a value", "# join: later\nnode-name: join\njoin-file: x\njoin: petrel1.AbC-d_e\n", "# join: later\nnode-name: join\njoin-file: x\n"},
		{"in a form without lines of its own", "{join: petrel1.AbC-d_e, node-name: pi}\n", "node-name: pi\n"},
		{"another token, for the next start", "join: petrel1.other\n", "join: petrel1.other\n"},
		{"none", "node-name: pi\n", "node-name: pi\n"},
	} {
		root := image(t, "etc/init.d/")
		full := write(t, filepath.Join(root, "etc/petrel/agent.yaml"), c.before)
		write(t, full+".new", "what a power cut has left") // of an earlier try
		tg, _ := target(root)
		file, err := tg.ForgetToken(token)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got, err := os.ReadFile(full)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.after || (file != "") != (c.before != c.after) {
			t.Errorf("%s: %q, want %q; reported %q", c.name, got, c.after, file)
		}
		if fi, err := os.Stat(full); c.before != c.after && (err != nil || fi.Mode().Perm() != 0o600) {
			t.Errorf("%s: mode %v, %v", c.name, fi.Mode(), err)
		}
	}
	tg, _ := target(image(t, "etc/init.d/"))
	if file, err := tg.ForgetToken(token); file != "" || err != nil {
		t.Errorf("without settings: %q, %v", file, err)
	}
	if tg.has("/etc/petrel") {
		t.Error("a directory was made for settings that are not there")
	}
	broken, _ := target(image(t, "etc/init.d/"))
	write(t, filepath.Join(broken.Root, "etc/petrel/agent.yaml"), "join: [\n")
	if _, err := broken.ForgetToken(token); err == nil || !strings.Contains(err.Error(), "agent.yaml") {
		t.Errorf("settings that cannot be read: %v", err)
	}
}

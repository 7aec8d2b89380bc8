package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// userData is the part of cloud-init's form that the example uses. Other keys are an error.
type userData struct {
	WriteFiles []struct {
		Path        string `json:"path"`
		Permissions string `json:"permissions"`
		Content     string `json:"content"`
	} `json:"write_files"`
	RunCmd [][]string `json:"runcmd"`
}

const firstBootUnit = "/etc/systemd/system/petrel-firstboot.service"

// TestUserData checks that the example for cloud-init is in its form, and that script and unit in it are those that TestScripts runs and
// firstrun.sh writes.
func TestUserData(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "firstboot", "user-data"))
	if err != nil {
		t.Fatal(err)
	}
	var data userData
	if err := yaml.UnmarshalStrict(text, &data); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(examples, "firstboot", "petrel-firstboot.sh"))
	if err != nil {
		t.Fatal(err)
	}
	firstrun, err := os.ReadFile(filepath.Join(examples, "firstboot", "firstrun.sh"))
	if err != nil {
		t.Fatal(err)
	}
	_, unit, _ := strings.Cut(string(firstrun), "<<'UNIT'\n")
	unit, _, found := strings.Cut(unit, "UNIT\n")
	if !found {
		t.Fatal("firstrun.sh has no unit of systemd in it")
	}
	files := map[string]string{}
	for _, f := range data.WriteFiles {
		files[f.Path] = f.Content
		want := map[string]string{"/usr/local/sbin/petrel-firstboot": "0755", "/var/lib/petrel-firstboot/url": "0644", firstBootUnit: "0644"}[f.Path]
		if want == "" {
			want = "0600"
		}
		if f.Permissions != want {
			t.Errorf("%s has permissions %q, want %s", f.Path, f.Permissions, want)
		}
	}
	if files["/usr/local/sbin/petrel-firstboot"] != string(script) {
		t.Error("the script in user-data is not examples/firstboot/petrel-firstboot.sh: copy it")
	}
	if files[firstBootUnit] != unit {
		t.Error("the unit in user-data is not the one in examples/firstboot/firstrun.sh: copy it")
	}
	if len(files) != 5 || files["/var/lib/petrel-firstboot/token"] == "" {
		t.Errorf("files %v", files)
	}
	// The unit is what repeats it: a script that cloud-init itself starts is started once, also when it fails or the power goes.
	if len(data.RunCmd) != 1 || !slices.Equal(data.RunCmd[0], []string{"systemctl", "enable", "--now", "--no-block", filepath.Base(firstBootUnit)}) {
		t.Errorf("runcmd %q", data.RunCmd)
	}
}

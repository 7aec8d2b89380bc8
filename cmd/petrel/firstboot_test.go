package main

import (
	"os"
	"path/filepath"
	"slices"
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

// TestUserData checks that the example for cloud-init is in its form, and that the script in it is the one that TestScripts runs.
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
	files := map[string]string{}
	for _, f := range data.WriteFiles {
		files[f.Path] = f.Content
		want := map[string]string{"/usr/local/sbin/petrel-firstboot": "0755", "/var/lib/petrel-firstboot/url": "0644"}[f.Path]
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
	if len(files) != 4 || files["/var/lib/petrel-firstboot/token"] == "" {
		t.Errorf("files %v", files)
	}
	if len(data.RunCmd) != 1 || !slices.Equal(data.RunCmd[0], []string{"/usr/local/sbin/petrel-firstboot"}) {
		t.Errorf("runcmd %q", data.RunCmd)
	}
}

package shim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRemoveEmpty leaves what another containerd, or another namespace of the same, has in the directories that all share.
func TestRemoveEmpty(t *testing.T) {
	tests := []struct {
		name       string
		dirs       []string
		left, gone string
	}{
		{"alone", []string{"runc/petrel", "s"}, "", "."},
		{"a container of its own", []string{"runc/petrel/c1", "s"}, "runc/petrel/c1", "s"},
		{"another namespace", []string{"runc/petrel", "runc/k8s.io/c1"}, "runc/k8s.io/c1", "runc/petrel"},
		{"another containerd", []string{"runc/petrel", "io.containerd.grpc.v1.cri"}, "io.containerd.grpc.v1.cri", "runc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "containerd")
			for _, d := range tt.dirs {
				if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time there is nothing to do
				if err := RemoveEmpty(root, "petrel"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(filepath.Join(root, tt.gone)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", tt.gone, err)
			}
			if _, err := os.Stat(filepath.Join(root, tt.left)); tt.left != "" && err != nil {
				t.Error(err)
			}
		})
	}
}

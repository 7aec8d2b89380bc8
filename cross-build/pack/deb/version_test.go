package deb

import (
	"os/exec"
	"testing"
)

// TestVersion checks the form, and that dpkg orders versions as they came after each other.
func TestVersion(t *testing.T) {
	// In the order of time.
	versions := []struct{ petrel, debian string }{
		{"1f67a02", "0~g1f67a02"},
		{"v1.2.3-rc.1", "1.2.3~rc.1"},
		{"v1.2.3-rc.1-4-g1f67a02", "1.2.3~rc.1+4.g1f67a02"},
		{"v1.2.3-rc.2", "1.2.3~rc.2"},
		{"v1.2.3", "1.2.3"},
		{"v1.2.3-dirty", "1.2.3+0.dirty"},
		{"v1.2.3-14-g1f67a02", "1.2.3+14.g1f67a02"},
		{"v1.2.3-14-g1f67a02-dirty", "1.2.3+14.g1f67a02.dirty"},
		{"v1.2.10", "1.2.10"},
		{"v2", "2"},
		{"v2.0.0-alpha", "2.0.0~alpha"},
	}
	for i, v := range versions {
		if got := Version(v.petrel); got != v.debian {
			t.Errorf("Version(%q) = %q, want %q", v.petrel, got, v.debian)
		}
		if i > 0 && v.petrel != "v2.0.0-alpha" {
			before := versions[i-1].debian
			if err := exec.Command("dpkg", "--compare-versions", before, "lt", v.debian).Run(); err != nil {
				t.Errorf("dpkg does not have %s before %s: %v", before, v.debian, err)
			}
		}
	}
	for _, v := range []string{"dev", "1234567", "feature/x_y", "1f67a02-dirty", ""} { // of no release: before all of them, and valid
		if err := exec.Command("dpkg", "--compare-versions", Version(v), "lt-nl", "0.0.1").Run(); err != nil {
			t.Errorf("Version(%q) = %q, which dpkg does not have before 0.0.1: %v", v, Version(v), err)
		}
	}
}

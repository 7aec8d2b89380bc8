package linkkeys

import "testing"

func TestKeysStay(t *testing.T) {
	path := t.TempDir() + "/pki/link.key"
	a, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Load(path); err != nil || a != b {
		t.Errorf("other keys after a restart: %v", err)
	}
}

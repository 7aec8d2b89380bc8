package sign

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need returns the program, without which nothing can be tested.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%v: `make setup-release` installs it", err)
	}
	if err != nil {
		t.Skipf("%v: `make setup-release` installs it", err)
	}
	return path
}

// makeKey returns a key that minisign made, without a password, and its public part.
func makeKey(t *testing.T) (secret, public string) {
	t.Helper()
	dir := t.TempDir()
	secret, public = filepath.Join(dir, "key"), filepath.Join(dir, "pub")
	if out, err := exec.Command(need(t, "minisign"), "-G", "-W", "-s", secret, "-p", public).CombinedOutput(); err != nil {
		t.Fatalf("minisign -G: %v: %s", err, out)
	}
	return secret, public
}

// TestMinisign checks that minisign verifies what is signed by a key of its own, and refuses what was changed since then.
func TestMinisign(t *testing.T) {
	secret, public := makeKey(t)
	key, err := Key(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "SHA256SUMS")
	if err := os.WriteFile(file, []byte("some digests\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := File(key, file, "petrel v1.2.3"); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(t.TempDir(), "pub")
	if err := Public(key, ours); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{public, ours} {
		out, err := exec.Command("minisign", "-V", "-p", p, "-m", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Trusted comment: petrel v1.2.3") {
			t.Errorf("minisign -V with %s: %v: %s", p, err, out)
		}
	}
	first, err := os.ReadFile(file + ".minisig")
	if err != nil {
		t.Fatal(err)
	}
	if err := File(key, file, "petrel v1.2.3"); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(file + ".minisig"); string(again) != string(first) {
		t.Errorf("the same file has two signatures:\n%s\n%s", first, again)
	}
	forged := strings.Replace(string(first), "v1.2.3", "v1.2.4", 1)
	if err := os.WriteFile(file+".minisig", []byte(forged), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("minisign", "-V", "-p", public, "-m", file).CombinedOutput(); err == nil {
		t.Errorf("a changed comment is trusted: %s", out)
	}
}

// TestEncryptedKey checks that the password of a key that minisign encrypted is asked for, and used.
func TestEncryptedKey(t *testing.T) {
	const file = "testdata/encrypted.key" // made by minisign -G; its password is "petrel"
	if _, err := Key(file, ""); err == nil || !strings.Contains(err.Error(), "SIGN_PASSWORD") {
		t.Errorf("without a password: %v", err)
	}
	if testing.Short() {
		return // each try takes a gigabyte of memory, by minisign's choice
	}
	if _, err := Key(file, "kestrel"); err == nil {
		t.Error("a wrong password is accepted")
	}
	key, err := Key(file, "petrel")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "pub")
	if err := Public(key, out); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/encrypted.pub")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Split(string(got), "\n")[1] != strings.Split(string(want), "\n")[1] {
		t.Errorf("public key %s, want %s", got, want)
	}
}

package sign

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/scrypt"

	"petrel.dev/petrel/cross-build/pack/packtest"
)

// makeKey returns a key that minisign made, without a password, and its public part.
func makeKey(t *testing.T) (secret, public string) {
	t.Helper()
	dir := t.TempDir()
	secret, public = filepath.Join(dir, "key"), filepath.Join(dir, "pub")
	if out, err := exec.Command(packtest.Program(t, "minisign"), "-G", "-W", "-s", secret, "-p", public).CombinedOutput(); err != nil {
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

// encrypted writes a key as minisign encrypts it, with a cost of a thousandth: minisign's own takes a gigabyte of memory and seconds.
func encrypted(t *testing.T, key minisign.PrivateKey, password string) string {
	t.Helper()
	const ops, mem = 1 << 15, 1 << 24 // for which minisign's N is 1024, r 8 and p 1
	text, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(strings.Split(string(text), "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	// Algorithm, key derivation, checksum: two letters each; salt, ops, mem; the key with its number, and the checksum of both.
	copy(b[2:], "Sc")
	copy(b[6:38], "a salt that is no secret, 32 long")
	binary.LittleEndian.PutUint64(b[38:], ops)
	binary.LittleEndian.PutUint64(b[46:], mem)
	sum := blake2b.Sum256(append([]byte("Ed"), b[54:126]...))
	copy(b[126:], sum[:])
	stream, err := scrypt.Key([]byte(password), b[6:38], 1024, 8, 1, len(b)-54)
	if err != nil {
		t.Fatal(err)
	}
	subtle.XORBytes(b[54:], b[54:], stream)
	file := filepath.Join(t.TempDir(), "key")
	text = []byte("untrusted comment: minisign encrypted secret key\n" + base64.StdEncoding.EncodeToString(b) + "\n")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestEncryptedKey checks that the password of an encrypted key is asked for, and used.
func TestEncryptedKey(t *testing.T) {
	_, want, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	file := encrypted(t, want, "petrel")
	if _, err := Key(file, ""); err == nil || !strings.Contains(err.Error(), "SIGN_PASSWORD") {
		t.Errorf("without a password: %v", err)
	}
	if _, err := Key(file, "kestrel"); err == nil {
		t.Error("a wrong password is accepted")
	}
	if got, err := Key(file, "petrel"); err != nil || !got.Equal(want) {
		t.Errorf("with the password: another key, or %v", err)
	}
	if err := os.WriteFile(file, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Key(file, "petrel"); err == nil {
		t.Error("what is no key is accepted")
	}
}

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"aead.dev/minisign"

	"petrel.dev/petrel/cross-build/pack/packtest"
	"petrel.dev/petrel/cross-build/pack/sign"
)

// everywhere runs a test with each shell, and with minisign and with OpenSSL for the signature.
func everywhere(t *testing.T, test func(t *testing.T, shell string, checker ...string)) {
	for shell := range shells {
		for _, checker := range []string{"minisign", "openssl"} {
			t.Run(shell+" "+checker, func(t *testing.T) {
				t.Parallel()
				test(t, shell, checker)
			})
		}
	}
}

// TestInstallScript checks a first installation, a second that changes nothing, and an upgrade, from a directory and by HTTP.
func TestInstallScript(t *testing.T) {
	everywhere(t, func(t *testing.T, shell string, checker ...string) {
		r := newRelease(t)
		server := httptest.NewServer(http.FileServer(http.Dir(r.dir)))
		t.Cleanup(server.Close)
		c := newComputer(t, shell, "x86_64", append(checker, "wget")...)
		if out := c.works("--from", r.dir, "--key", r.pub); !strings.Contains(out, "signature is good: petrel v1") || c.installed() != "petrel v1 linux-amd64" {
			t.Errorf("%s installed:\n%s", c.installed(), out)
		}
		if out := c.works("--from", server.URL, "--key", r.pub); !strings.Contains(out, "already") {
			t.Errorf("a second time, by wget:\n%s", out)
		}
		r.write(t, "petrel-linux-amd64", []byte("#!/bin/sh\necho petrel v2\n"))
		r.write(t, "petrel-linux-amd64.tar.gz", archive(t, "#!/bin/sh\necho petrel v2\n"))
		r.sign(t, "petrel v2")
		c.refuses("the release is petrel v2", "--from", server.URL, "--key", r.pub, "--version", "v1")
		if c.works("--from", server.URL+"/", "--key", r.pub, "--version", "v2"); c.installed() != "petrel v2" {
			t.Errorf("after an upgrade %q is installed", c.installed())
		}
		key := filepath.Join(t.TempDir(), "petrel.pub")
		if err := sign.Public(r.key, key); err != nil {
			t.Fatal(err)
		}
		d := newComputer(t, shell, "riscv64", append(checker, "curl", "zstd")...)
		if d.works("--from", server.URL, "--key", key); d.installed() != "petrel v1 linux-riscv64" {
			t.Errorf("by curl and zstd, with a key in a file, %q is installed", d.installed())
		}
	})
}

// TestInstallBeside checks that a release beside the script comes before the one that the build names, which is the last resort.
func TestInstallBeside(t *testing.T) {
	r := newRelease(t)
	server := httptest.NewServer(http.FileServer(http.Dir(r.dir)))
	t.Cleanup(server.Close)
	script, err := os.ReadFile("../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{"beside": "http://127.0.0.1:9", "published": server.URL} {
		dir := r.dir
		if name == "published" {
			dir = t.TempDir()
		}
		c := newComputer(t, "dash", "x86_64", "minisign", "curl")
		c.script = filepath.Join(dir, "install.sh")
		text := strings.Replace(string(script), "\nkey=''\nurl=''\n", "\nkey='"+r.pub+"'\nurl='"+url+"'\n", 1)
		if err := os.WriteFile(c.script, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if c.works(); c.installed() != "petrel v1 linux-amd64" {
			t.Errorf("%s: %q is installed", name, c.installed())
		}
	}
}

// TestInstallForged checks that nothing is installed that the key's owner did not release.
func TestInstallForged(t *testing.T) {
	everywhere(t, func(t *testing.T, shell string, checker ...string) {
		r := newRelease(t)
		c := newComputer(t, shell, "x86_64", checker...)
		args := []string{"--from", r.dir, "--key", r.pub}
		c.works(args...)

		evil := "#!/bin/sh\necho evil\n"
		r.write(t, "petrel-linux-amd64.tar.gz", archive(t, evil))
		sums, err := os.ReadFile(r.file("SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		arm := newComputer(t, shell, "x86_64", checker...)
		arm.refuses("damaged or forged", args...)
		arm.refuses("damaged or forged", append(args, "--digest-only")...)

		r.write(t, "petrel-linux-amd64", []byte(evil))
		signature, err := os.ReadFile(r.file("SHA256SUMS.minisig"))
		if err != nil {
			t.Fatal(err)
		}
		r.sign(t, "petrel v1")
		good, err := os.ReadFile(r.file("SHA256SUMS.minisig"))
		if err != nil {
			t.Fatal(err)
		}
		r.write(t, "SHA256SUMS.minisig", signature) // of other digests
		c.refuses("signature", args...)
		r.write(t, "SHA256SUMS.minisig", []byte(strings.Replace(string(good), "petrel v1", "petrel v9", 1)))
		c.refuses("signature", args...)
		r.write(t, "SHA256SUMS.minisig", []byte("untrusted comment: x\n!!!\ntrusted comment: petrel v1\n???\n"))
		c.refuses("signature", args...)
		r.write(t, "SHA256SUMS.minisig", nil)
		c.refuses("signature", args...)
		public, _, err := minisign.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		r.write(t, "SHA256SUMS.minisig", good)
		c.refuses("signature", "--from", r.dir, "--key", public.String())
		c.refuses("key", "--from", r.dir, "--key", "RWQ")
		if err := os.Remove(r.file("SHA256SUMS.minisig")); err != nil {
			t.Fatal(err)
		}
		c.refuses("no signature", args...)
		r.write(t, "SHA256SUMS", append(sums, sums...))
		c.refuses("twice", append(args, "--digest-only")...)
	})
}

// TestInstallWithoutTools checks what is said where a program is missing, and that the digest is checked all the same.
func TestInstallWithoutTools(t *testing.T) {
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			r := newRelease(t)
			c := newComputer(t, shell, "x86_64")
			c.refuses("install minisign, or OpenSSL 3", "--from", r.dir, "--key", r.pub)
			c.refuses("no public key is known", "--from", r.dir)
			if shell != "busybox" { // which has a wget whatever the PATH has
				c.refuses("neither curl nor wget", "--from", "http://127.0.0.1:9", "--key", r.pub)
			}
			c.fake("openssl", "exit 1") // an old one, that does not know Ed25519
			c.refuses("install minisign, or OpenSSL 3", "--from", r.dir, "--key", r.pub)
			if out := c.works("--from", r.dir, "--digest-only"); !strings.Contains(out, "not checked") || c.installed() != "petrel v1 linux-amd64" {
				t.Errorf("%s is installed:\n%s", c.installed(), out)
			}
			c.refuses("needs the signature", "--from", r.dir, "--digest-only", "--version", "v1")
			c.refuses("is it a release", "--from", t.TempDir(), "--digest-only")
			c.refuses("where is the release", "--digest-only")
			c.refuses("--from needs a value", "--from")
			c.refuses("what is --frm", "--frm", r.dir)
		})
	}
}

// TestInstallArchitectures checks which binary a machine gets.
func TestInstallArchitectures(t *testing.T) {
	r := newRelease(t)
	for _, m := range []struct{ uname, bits, arch string }{
		{"x86_64", "64", "amd64"}, {"aarch64", "64", "arm64"}, {"aarch64", "32", "armv7"}, // Raspberry Pi OS of 32 bits on a Pi 4
		{"armv8l", "32", "armv7"}, {"armv7l", "32", "armv7"}, {"armv6l", "32", "armv6"}, {"riscv64", "64", "riscv64"},
	} {
		t.Run(m.uname+" "+m.bits, func(t *testing.T) {
			c := newComputer(t, "dash", m.uname)
			c.fake("getconf", "echo "+m.bits)
			if c.works("--from", r.dir, "--digest-only"); c.installed() != "petrel v1 linux-"+m.arch {
				t.Errorf("%q is installed, want that for %s", c.installed(), m.arch)
			}
		})
	}
	c := newComputer(t, "dash", "mips")
	c.refuses("petrel is not built for mips", "--from", r.dir, "--digest-only")
	if c.works("--from", r.dir, "--digest-only", "--arch", "armv6"); c.installed() != "petrel v1 linux-armv6" {
		t.Errorf("%q is installed, asked for was armv6", c.installed())
	}
	c.refuses("the release has no petrel-linux-sparc", "--from", r.dir, "--digest-only", "--arch", "sparc")
	c.fake("uname", "echo Plan9")
	c.refuses("petrel is not built for Plan9", "--from", r.dir, "--digest-only")
	if err := os.Remove(filepath.Join(c.bin, "getconf")); err != nil { // as with BusyBox
		t.Fatal(err)
	}
	c.fake("uname", "case $1 in -s) echo Linux ;; *) echo aarch64 ;; esac")
	if c.works("--from", r.dir, "--digest-only"); c.installed() != "petrel v1 linux-arm64" {
		t.Errorf("by the bits of /bin/sh %q is installed", c.installed())
	}
}

// TestInstallUnfit checks a binary that does not run on the machine.
func TestInstallUnfit(t *testing.T) {
	r := newRelease(t)
	r.write(t, "petrel-linux-arm64", []byte("\x7fELF no program"))
	r.write(t, "petrel-linux-arm64.tar.gz", archive(t, "\x7fELF no program"))
	r.sign(t, "petrel v1")
	newComputer(t, "dash", "aarch64").refuses("does not run on this machine", "--from", r.dir, "--digest-only")
	// Digests that are right for the archive, and a binary in it that is another.
	r.write(t, "petrel-linux-arm64.tar.gz", archive(t, "#!/bin/sh\necho other\n"))
	r.sign(t, "petrel v1")
	newComputer(t, "dash", "aarch64").refuses("the binary in the archive has not the digest", "--from", r.dir, "--digest-only")
}

// TestInstallFull checks that a full disk leaves what is there, and is named.
func TestInstallFull(t *testing.T) {
	packtest.Root(t)
	r := newRelease(t)
	big := "#!/bin/sh\n# " + strings.Repeat("x", 3<<20) + "\necho petrel big\n"
	for _, shell := range []string{"dash", "busybox"} {
		for _, what := range []string{"download", "unpacking"} {
			t.Run(shell+" "+what, func(t *testing.T) {
				c := newComputer(t, shell, "x86_64")
				if err := syscall.Mount("tmpfs", c.to, "tmpfs", 0, "size=1m,mode=755"); err != nil {
					t.Fatal(err)
				}
				defer syscall.Unmount(c.to, 0)
				r.write(t, "petrel-linux-amd64", []byte("#!/bin/sh\necho petrel v1 linux-amd64\n"))
				r.write(t, "petrel-linux-amd64.tar.gz", archive(t, "#!/bin/sh\necho petrel v1 linux-amd64\n"))
				r.sign(t, "petrel v1")
				c.works("--from", r.dir, "--digest-only")
				r.write(t, "petrel-linux-amd64", []byte(big))
				r.write(t, "petrel-linux-amd64.tar.gz", archive(t, big)) // compresses well
				if what == "download" {
					r.write(t, "petrel-linux-amd64.tar.gz", []byte(big))
				}
				r.sign(t, "petrel v2")
				c.refuses("no space is left in "+c.to, "--from", r.dir, "--digest-only")
			})
		}
	}
}

// TestInstallRights checks what someone who is not root can do.
func TestInstallRights(t *testing.T) {
	packtest.Root(t)
	r := newRelease(t)
	for d := r.dir; d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	c := newComputer(t, "dash", "x86_64")
	c.user = 65534
	c.refuses("run this as root", "--from", r.dir, "--digest-only")
	c.refuses("a service is installed by root", "--from", r.dir, "--digest-only", "hub")
	if err := os.Chown(c.to, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if c.works("--from", r.dir, "--digest-only"); c.installed() != "petrel v1 linux-amd64" {
		t.Errorf("%q is installed in a directory of one's own", c.installed())
	}
}

// TestInstallService checks that petrel is asked to install a service only when install.sh is, and gets its flags as they are. It runs in
// a mount namespace of its own, in which /usr/local/bin is empty.
func TestInstallService(t *testing.T) {
	packtest.Root(t)
	r := newRelease(t)
	c := newComputer(t, "dash", "x86_64")
	c.refuses("leave --to out", "--from", r.dir, "--digest-only", "hub")
	c.works("--from", r.dir, "--digest-only")
	if calls, _ := os.ReadFile(c.calls); len(calls) > 0 {
		t.Errorf("petrel was called though no service was asked for: %s", calls)
	}
	script, err := filepath.Abs("../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", `mount -t tmpfs none /usr/local/bin; PATH=$1; shift; exec sh "$@"`, "sh", c.bin,
		script, "--from", r.dir, "--key", r.pub, "--digest-only", "agent", "--name", "hub", "--labels", "a=b c")
	cmd.Env = append(os.Environ(), "CALLS="+c.calls)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install.sh agent: %v\n%s", err, out)
	}
	calls, err := os.ReadFile(c.calls)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^/usr/local/bin/\.petrel-install\.\w+/petrel install agent --name hub --labels a=b c\n$`).Match(calls) {
		t.Errorf("calls of petrel: %q", calls)
	}
}

// TestInstallWhole checks that the script does nothing when its end is missing, as after a download that broke off.
func TestInstallWhole(t *testing.T) {
	whole, err := os.ReadFile("../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(whole)), "\n")
	if last := lines[len(lines)-1]; last != `main "$@"` {
		t.Fatalf("the last line is %q", last)
	}
	for n := len(lines) - 1; n > 0; n -= 7 {
		cmd := exec.Command("dash", "-s", "--", "--to", "/nowhere")
		cmd.Stdin = strings.NewReader(strings.Join(lines[:n], ""))
		out, _ := cmd.Output() // a syntax error is fine, and anything that is done is not
		if len(out) > 0 {
			t.Errorf("the first %d lines do something: %s", n, out)
		}
	}
}

package harness

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"petrel.dev/petrel/internal/buildinfo"
)

// Main is the TestMain of a package of such tests: it builds what they run, and waits until no other run of the same
// package goes on in this checkout.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("6") // unless set otherwise: these tests spend their time waiting for links to break
	}
	code, err := func() (int, error) {
		if why := unable("ip", "nsenter"); why != "" {
			return skip(why)
		}
		release, err := alone()
		if err != nil {
			return 1, err
		}
		defer release()
		dir, err := os.MkdirTemp("", "petrel-e2e-bin-")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		if Petrel, err = binary(dir, "PETREL_BIN", "petrel", "./cmd/petrel"); err != nil {
			return 1, err
		}
		if why := unable("containerd", "runc"); why != "" && len(Inside()) == 0 {
			return skip(why)
		}
		if KubectlPath, err = binary(dir, "PETREL_KUBECTL", "kubectl", "./test/tools/kubectl"); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// checkout distinguishes checkouts of this repository. Names made with it are the same at each run, so that what a killed
// run left is found.
func checkout() string {
	wd, _ := os.Getwd() // without one, all are alike
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(wd)))
}

// alone waits until no other run of these tests goes on in this checkout.
func alone() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "petrel-e2e-"+checkout()+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// skip ends a run that cannot be made here: a failure where nobody would notice that nothing ran.
func skip(why string) (int, error) {
	if os.Getenv("CI") == "true" {
		return 1, errors.New("end-to-end tests cannot run: " + why)
	}
	fmt.Println("skipping end-to-end tests:", why)
	return 0, nil
}

// unable says why tests that need root and these tools cannot run here; "" when they can.
func unable(tools ...string) string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not installed; `make setup` installs it"
		}
	}
	return ""
}

// Inside returns the programs that travel in the binary under test, name → version; empty: it uses those of the machine.
func Inside() map[string]string {
	var info struct{ Programs map[string]string }
	if out, err := exec.Command(Petrel, "version", "--client", "-o", "json").Output(); err != nil || json.Unmarshal(out, &info) != nil {
		return nil
	}
	return info.Programs
}

func binary(dir, env, name, pkg string) (string, error) {
	if path := os.Getenv(env); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, name)
	// kubectl refuses to compare versions when its own is not one.
	cmd := exec.Command("go", "build", "-ldflags", "-X k8s.io/component-base/version.gitVersion="+buildinfo.Kubernetes, "-o", path, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// Petrel and KubectlPath are the binaries under test, built once by Main.
var Petrel, KubectlPath string

// Long skips a test that takes more than half a minute and whose parts have tests of their own: `make e2e` runs it, `make test` has no time for it.
func Long(t *testing.T) {
	t.Helper()
	if os.Getenv("PETREL_LONG") == "" {
		t.Skip("takes long: make e2e runs it")
	}
}

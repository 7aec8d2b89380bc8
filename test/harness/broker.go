package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// EachBroker runs a test on a LAN of n machines with a hub on the first, over the hub's own broker and over Mosquitto. With
// Mosquitto, which has one more machine, the others cannot reach the hub at all: everything goes by the broker.
func EachBroker(t *testing.T, name string, n int, f func(t *testing.T, ms []Machine, h *Hub)) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		ms := LAN(t, name, n)
		f(t, ms, StartHub(t, ms[0]))
	})
	t.Run("mosquitto", func(t *testing.T) {
		t.Parallel()
		ms := LAN(t, name+"-mq", n+1)
		url := mosquitto(t, ms[n])
		ms = ms[:n]
		for _, m := range ms[1:] {
			if out, err := exec.Command("ip", "-n", m.NS, "route", "add", "blackhole", ms[0].IP+"/32").CombinedOutput(); err != nil {
				t.Fatalf("cut %s off from the hub: %v: %s", m.NS, err, out)
			}
		}
		f(t, ms, StartHub(t, ms[0], "--broker", url))
	})
}

// mosquitto starts the distribution's broker on a machine and gives its URL. Strangers are kept out by a password.
func mosquitto(t *testing.T, on Machine) string {
	t.Helper()
	bin, err := exec.LookPath("mosquitto")
	if err != nil {
		bin = "/usr/sbin/mosquitto" // not in everybody's PATH
	}
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mosquitto is not installed; `make setup-test` installs it")
		}
		t.Skip("mosquitto is not installed; `make setup-test` installs it")
	}
	dir := t.TempDir()
	passwords, conf := filepath.Join(dir, "passwords"), filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(passwords, []byte("fleet:harbour\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mosquitto_passwd", "-U", passwords).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	text := fmt.Sprintf("user root\nlistener 1883 %s\nallow_anonymous false\npassword_file %s\npersistence false\nlog_dest stderr\nlog_type error\nlog_type warning\n", on.IP, passwords)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &LockedBuffer{}
	cmd := on.Command(context.Background(), bin, "-c", conf)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it keeps nothing
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("--- output of mosquitto\n%s", Tail(out.String(), 20))
		}
	})
	address := net.JoinHostPort(on.IP, "1883")
	Eventually(t, 10*time.Second, "mosquitto listens", func() error {
		sockets, err := on.Command(t.Context(), "cat", "/proc/net/tcp").Output()
		if err == nil && !strings.Contains(string(sockets), ":075B 00000000:0000 0A") { // 1883, listening
			err = fmt.Errorf("not yet at %s", address)
		}
		return err
	})
	return "mqtt://fleet:harbour@" + address
}

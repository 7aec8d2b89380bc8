package boards

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// hope is how long to wait for what an emulated board does. Emulated time means nothing.
const hope = 20 * time.Minute

// board is an emulated machine with a disk that stays from one power-on to the next.
type board struct {
	t       *testing.T
	on      harness.Machine // whose network qemu has
	disk    string
	console string // file with the output since the last power-on
	off     func() // ends qemu at once; nil while the power is off
}

// newBoard has a disk as Debian delivers it, and is off.
func newBoard(t *testing.T, on harness.Machine) *board {
	t.Helper()
	b := &board{t: t, on: on, disk: filepath.Join(t.TempDir(), "disk"), console: filepath.Join(boardDir, "log")}
	if out, err := exec.Command("cp", "--sparse=always", os.Getenv("PETREL_BOARD_ROOT"), b.disk).CombinedOutput(); err != nil {
		t.Fatalf("disk of the board: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if b.off != nil {
			b.off()
		}
		if t.Failed() {
			out, _ := os.ReadFile(b.console)
			t.Logf("--- console of the board\n%s", harness.Tail(string(out), 60))
		}
	})
	return b
}

// powerOn starts the board with arguments for its kernel.
func (b *board) powerOn(args string) {
	b.t.Helper()
	console, err := os.Create(b.console)
	if err != nil {
		b.t.Fatal(err)
	}
	defer console.Close()
	cmd := b.on.Command(context.Background(), filepath.Join(boardDir, "start"), b.disk, "", args)
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.off = func() {
		_ = cmd.Process.Kill() // nsenter and the script have become qemu
		_ = cmd.Wait()
		b.off = nil
	}
}

// powerOff ends qemu in the middle of what it does. What the board's kernel had not yet written is lost.
func (b *board) powerOff() {
	b.t.Helper()
	b.off()
}

var report = regexp.MustCompile(`board: (\d+) pods run, the agent takes (\d+) \((\d+)\) KiB, containerd (\d+) \((\d+)\) KiB`)

// usage is what the board has said on its console once.
type usage struct {
	pods                                         int
	agent, agentAnon, containerd, containerdAnon int // RSS and its anonymous part, KiB
}

func (u usage) rss() int { return u.agent + u.containerd }

func (u usage) anon() int { return u.agentAnon + u.containerdAnon }

func (u usage) String() string {
	mib := func(kib int) float64 { return float64(kib) / 1024 }
	return fmt.Sprintf("%d pods; RSS (anonymous part) of the agent %.1f MiB (%.1f), of containerd %.1f (%.1f), together %.1f (%.1f)", u.pods,
		mib(u.agent), mib(u.agentAnon), mib(u.containerd), mib(u.containerdAnon), mib(u.rss()), mib(u.anon()))
}

// usages returns all that the board has said since the last power-on, the oldest first; at least one.
func (b *board) usages() (list []usage, err error) {
	out, err := os.ReadFile(b.console)
	if err != nil {
		return nil, err
	}
	for _, found := range report.FindAllSubmatch(out, -1) {
		var u usage
		for i, field := range []*int{&u.pods, &u.agent, &u.agentAnon, &u.containerd, &u.containerdAnon} {
			*field, _ = strconv.Atoi(string(found[i+1]))
		}
		list = append(list, u)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the board has not said what runs: %s", bytes.TrimSpace([]byte(harness.Tail(string(out), 1))))
	}
	return list, nil
}

// runs waits until the board itself says that so many pods run on it.
func (b *board) runs(pods int) usage {
	b.t.Helper()
	var u usage
	harness.Eventually(b.t, hope, fmt.Sprintf("%d pods run on the board", pods), func() error {
		list, err := b.usages()
		if err != nil {
			return err
		}
		if u = list[len(list)-1]; u.pods != pods {
			err = fmt.Errorf("%d run", u.pods)
		}
		return err
	})
	return u
}

// What agent and containerd may have together with ten pods at rest, in KiB.
const (
	nodeRSS  = 75 << 10
	nodeAnon = 40 << 10
)

// inARow is how often the board has to say that it keeps to its budget: half a minute, in which the pages come back that are in use, after all have
// been given back.
const inARow = 4

// lean waits until the board, with so many pods on it, keeps to its memory budget, and returns the most that it has taken then: internal/lean
// gives memory back some minutes after work has ended.
func (b *board) lean(pods int) usage {
	b.t.Helper()
	var most usage
	harness.Eventually(b.t, hope, fmt.Sprintf("with %d pods the board keeps to its memory budget", pods), func() error {
		list, err := b.usages()
		if err != nil {
			return err
		}
		if len(list) < inARow {
			return fmt.Errorf("%d reports", len(list))
		}
		most = usage{}
		for _, u := range list[len(list)-inARow:] {
			if u.rss() > nodeRSS || u.anon() > nodeAnon || u.pods != pods {
				return fmt.Errorf("%s; the budget is %d KiB (%d)", u, nodeRSS, nodeAnon)
			}
			if u.rss() > most.rss() {
				most = u
			}
		}
		return nil
	})
	return most
}

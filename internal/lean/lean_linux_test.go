package lean

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadOnly(t *testing.T) {
	for _, c := range []struct {
		name, maps string
		want       []mapping
	}{
		{"text and read-only data, not the writable part", `00400000-02a1b000 r-xp 00000000 08:02 173521      /usr/bin/petrel
02a1b000-04b00000 r--p 0261b000 08:02 173521      /usr/bin/petrel
04b00000-04e00000 rw-p 04700000 08:02 173521      /usr/bin/petrel
`, []mapping{{0x400000, 0x2a1b000}, {0x2a1b000, 0x4b00000}}},
		{"others' files, the heap and the stack", `7f0000000000-7f0000010000 r--p 00000000 08:02 9  /usr/lib/petrel
c000000000-c000400000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0   [stack]
`, nil},
		{"shared", "00400000-00500000 r--s 00000000 08:02 1 /usr/bin/petrel\n", nil},
		{"a path that only ends alike", "00400000-00500000 r--p 00000000 08:02 1 /opt/usr/bin/petrel\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readOnly(strings.NewReader(c.maps), "/usr/bin/petrel")
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
	if _, err := readOnly(strings.NewReader("4000 r--p 0 08:02 1 /usr/bin/petrel\n"), "/usr/bin/petrel"); err == nil {
		t.Error("a line without a range was accepted")
	}
}

// TestDropProgram drops this test's own pages: fewer are resident afterwards, and the program goes on.
func TestDropProgram(t *testing.T) {
	before := rssFile(t)
	n, err := dropProgram()
	if err != nil {
		t.Fatal(err)
	}
	if linked, err := relocated("/proc/self/exe"); err != nil || linked {
		if n != 0 {
			t.Errorf("%d bytes of an executable that was relocated are dropped", n)
		}
		t.Skipf("this test is linked dynamically, as petrel never is: %v", err)
	}
	if n == 0 {
		t.Fatal("found none of this program's mappings")
	}
	if after := rssFile(t); after >= before {
		t.Errorf("%d KiB of files were resident before, %d after", before, after)
	}
	if s := strings.Repeat("petrel", 3); len(s) != 18 || table["b"] != 2 {
		t.Error("code or data changed")
	}
}

var table = map[string]int{"a": 1, "b": 2}

func rssFile(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}

// TestRunEnds checks that Run ends: with ctx, wherever it is, and nothing of it is left.
func TestRunEnds(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	for _, after := range []time.Duration{0, passes[0] + time.Second, passes[len(passes)-1] + time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			began := time.Now()
			if err := Run(ctx, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d != after {
				t.Errorf("ended after %s, not %s", d, after)
			}
		})
	}
	if now := debug.SetGCPercent(100); now != 100 {
		t.Errorf("the collector is left at %d", now)
	}
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1, 0)
	for i, step := range []struct {
		gap  time.Duration
		want int
		why  string
	}{
		{0, percentAtRest, "the first collection tells nothing"},
		{8 * time.Second, percentAtRest, "an idle agent"},
		{3 * time.Second, percentAtRest, "a little work is no work"},
		{50 * time.Millisecond, percentAtWork, "a burst of creates"},
		{900 * time.Millisecond, percentAtWork, "it goes on"},
		{3 * time.Second, percentAtWork, "collections are rarer with more room, this is not yet rest"},
		{10 * time.Second, percentAtRest, "rest"},
		{2 * time.Minute, percentAtRest, "the collector's own clock"},
	} {
		now = now.Add(step.gap)
		if got := p.collected(now); got != step.want {
			t.Errorf("step %d, %s: %d%%, want %d%%", i, step.why, got, step.want)
		}
	}
}

// TestPacerFollowsCollections checks that the real collector wakes it.
func TestPacerFollowsCollections(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	p := startPacer(slog.New(slog.DiscardHandler))
	for range 1000 {
		runtime.GC() // within a second of each other, on any machine that gets as far as this test
		p.mu.Lock()
		percent := p.percent
		p.mu.Unlock()
		if percent == percentAtWork {
			p.stop()
			if now := debug.SetGCPercent(100); now != 100 {
				t.Errorf("the collector is left at %d", now)
			}
			return
		}
	}
	t.Fatal("a thousand collections have not woken the pacer")
}

func TestPassDue(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		ago       time.Duration
		left, now int // MiB
		want      bool
		why       string
	}{
		{time.Hour, 40, 40, false, "nothing was done"},
		{time.Hour, 40, 49, false, "a little work"},
		{time.Hour, 40, 50, true, "pods came"},
		{minBetween, 40, 50, true, "long enough ago"},
		{minBetween - 1, 40, 50, false, "the last one has just been"},
		{time.Hour, 8, 11, false, "a quarter of little is not worth it"},
		{time.Hour, 8, 12, true, "the least that is"},
		{time.Hour, 40, 20, false, "the kernel has taken some"},
		{time.Hour, 0, 0, false, "nothing can be read"},
	} {
		if got := passDue(c.ago, c.left*mib, c.now*mib); got != c.want {
			t.Errorf("%s: %v", c.why, got)
		}
	}
}

// TestGivesBackAfterWork checks that a process whose first minutes are over gives memory back when work has made it larger: once, at
// the next collection at rest.
func TestGivesBackAfterWork(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	p := startPacer(slog.New(slog.DiscardHandler))
	defer p.stop()
	p.mu.Lock()
	long := time.Now().Add(-time.Hour)
	p.at, p.left = long, 1
	p.mu.Unlock()
	for range 1000 {
		runtime.GC()
		p.mu.Lock()
		at, left := p.at, p.left
		p.mu.Unlock()
		if at == long || left == 1 {
			continue
		}
		if left == 0 {
			t.Error("it does not know what it has left")
		}
		p.mu.Lock()
		p.left, p.pace = 1, pace{} // larger again and at rest, but too soon
		p.mu.Unlock()
		for range 10 {
			runtime.GC()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.at != at || p.left != 1 {
			t.Error("memory is given back again at once")
		}
		return
	}
	t.Fatal("a thousand collections after the work nothing has been given back")
}

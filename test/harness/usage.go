package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Usage is what /proc shows of a process.
type Usage struct {
	RSS, Anon, Peak int64         // KiB; Peak is the highest RSS since the process started
	CPU             time.Duration // user and system
	Written         int64         // bytes that reached the block layer
}

// UsageOf reads the use of a process.
func UsageOf(t *testing.T, pid int) Usage {
	t.Helper()
	read := func(file string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	number := func(text, key string) int64 {
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(line, key); ok {
				n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				return n
			}
		}
		t.Fatalf("no %q for pid %d", key, pid)
		return 0
	}
	status := read("status")
	stat := strings.Fields(read("stat")[strings.LastIndex(read("stat"), ")")+1:])
	user, _ := strconv.ParseInt(stat[11], 10, 64)
	system, _ := strconv.ParseInt(stat[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux architecture that Go knows
	return Usage{
		RSS: number(status, "VmRSS:"), Anon: number(status, "RssAnon:"), Peak: number(status, "VmHWM:"),
		CPU: time.Duration(user+system) * tick, Written: number(read("io"), "write_bytes:"),
	}
}

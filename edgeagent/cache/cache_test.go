package cache

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/wire"
)

func open(t testing.TB, dir string) *Cache {
	t.Helper()
	c, err := Open(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(uid string, version uint64, data string) wire.Put {
	return wire.Put{Object: wire.Object{ID: wire.ID{Kind: wire.KindPod, UID: uid}, Version: version, Namespace: "ns", Name: uid, Data: []byte(data)}}
}

func apply(t testing.TB, c *Cache, b *wire.Batch) {
	t.Helper()
	if _, err := c.Apply(b); err != nil {
		t.Fatal(err)
	}
}

func content(c *Cache) map[string]string {
	m := map[string]string{}
	for _, o := range c.Desired() {
		m[o.UID] = string(o.Data)
	}
	return m
}

func say(t testing.TB, c *Cache, kind wire.Kind, uid, data string) {
	t.Helper()
	if err := c.Report(wire.Object{ID: wire.ID{Kind: kind, UID: uid}, Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

// A plug pulled at any byte of any write: the cache opens, and holds the set as of one of the batches, never less than
// what was acknowledged.
func TestPowerCut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "cut")
		if err != nil {
			rt.Fatal(err)
		}
		path := filepath.Join(dir, "desired.log")
		c := open(t, dir)
		states := []map[string]string{{}}
		sizes := []int64{0}
		for i := range rapid.IntRange(1, 6).Draw(rt, "batches") {
			b := &wire.Batch{Revision: uint64(i)}
			for range rapid.IntRange(0, 3).Draw(rt, "puts") {
				b.Puts = append(b.Puts, put(fmt.Sprint(rapid.IntRange(0, 4).Draw(rt, "uid")), uint64(i), fmt.Sprint("v", i)))
			}
			for range rapid.IntRange(0, 2).Draw(rt, "deletes") {
				b.Deletes = append(b.Deletes, wire.ID{Kind: wire.KindPod, UID: fmt.Sprint(rapid.IntRange(0, 4).Draw(rt, "uid"))})
			}
			apply(t, c, b)
			states = append(states, content(c))
			fi, err := os.Stat(path)
			if err != nil {
				rt.Fatal(err)
			}
			sizes = append(sizes, fi.Size())
		}
		c.Close()
		cut := rapid.Int64Range(0, sizes[len(sizes)-1]).Draw(rt, "cut")
		if err := os.Truncate(path, cut); err != nil {
			rt.Fatal(err)
		}
		want := 0
		for i, s := range sizes {
			if s <= cut {
				want = i
			}
		}
		c = open(t, dir)
		defer c.Close()
		if got := content(c); !maps.Equal(got, states[want]) {
			rt.Fatalf("cut at %d of %v: got %v, want %v", cut, sizes, got, states[want])
		}
		apply(t, c, &wire.Batch{Puts: []wire.Put{put("next", 99, "next")}})
		c.Close()
		c = open(t, dir)
		if content(c)["next"] != "next" {
			rt.Fatal("a batch after the cut is lost")
		}
		// Nor does it make valid what the cut left behind of a batch that was never accepted.
		states[want]["next"] = "next"
		if got := content(c); !maps.Equal(got, states[want]) {
			rt.Fatalf("cut at %d of %v, after one more batch: got %v, want %v", cut, sizes, got, states[want])
		}
	})
}

// A node that is thrown out and taken back while it runs still knows its cluster's networks after the next power cut.
func TestClearKeepsSettings(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	settings := wire.Settings{ServiceCIDR: "10.43.0.0/16", ClusterDomain: "cluster.local"}
	if err := c.SetSettings(settings); err != nil {
		t.Fatal(err)
	}
	apply(t, c, &wire.Batch{Revision: 7, Puts: []wire.Put{put("a", 1, "a")}})
	if err := c.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetSettings(settings); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c = open(t, dir); c.Settings() != settings || len(c.Desired()) != 0 {
		t.Errorf("settings %+v, %d objects", c.Settings(), len(c.Desired()))
	}
	c.Close()
}

// Damage anywhere costs at most the objects it hits, and shows in the hash.
func TestDamage(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		c := open(t, dir)
		const n = 50
		for i := range n {
			apply(t, c, &wire.Batch{Puts: []wire.Put{put(fmt.Sprint(i), uint64(i+1), fmt.Sprint("content of ", i))}})
		}
		hash := c.Hash()
		c.Close()
		path := filepath.Join(dir, "desired.log")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := rnd.IntN(len(b))
		for i := at; i < min(at+8, len(b)); i++ {
			b[i] ^= byte(1 + rnd.IntN(255))
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c = open(t, dir)
		got := content(c)
		for uid, data := range got {
			if data != "content of "+uid {
				t.Errorf("seed %d: object %s became %q", seed, uid, data)
			}
		}
		if len(got) < n-2 {
			t.Errorf("seed %d: %d of %d objects are left", seed, len(got), n)
		}
		if len(got) < n && c.Hash() == hash {
			t.Errorf("seed %d: the loss does not show in the hash", seed)
		}
		c.Close()
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	big := make([]byte, 20<<10)
	for i := range 300 {
		apply(t, c, &wire.Batch{Revision: uint64(i), Puts: []wire.Put{put(fmt.Sprint(i%3), uint64(i), string(big)+fmt.Sprint(i))}})
	}
	if c.file.size > 2*compactFrom {
		t.Errorf("log of %d bytes for 60 KiB", c.file.size)
	}
	if err := c.SetSettings(wire.Settings{ServiceCIDR: "10.43.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	want, hash := content(c), c.Hash()
	c.Close()
	c = open(t, dir)
	defer c.Close()
	if !maps.Equal(want, content(c)) || hash != c.Hash() || c.Revision() != 299 || c.Settings().ServiceCIDR != "10.43.0.0/16" {
		t.Error("the cache changed over a restart")
	}
}

// A full disk: the batch is refused as a whole, and what was there stays, in memory and on disk.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	apply(t, c, &wire.Batch{Puts: []wire.Put{put("a", 1, "a")}})
	good := c.file.f
	c.file.f, _ = os.Open("/dev/full") // read-only: every write fails
	if _, err := c.Apply(&wire.Batch{Puts: []wire.Put{put("b", 1, "b")}}); err == nil {
		t.Fatal("a batch that could not be written was accepted")
	}
	if got := content(c); len(got) != 1 {
		t.Errorf("set after a failed write: %v", got)
	}
	c.file.f = good
	apply(t, c, &wire.Batch{Puts: []wire.Put{put("c", 1, "c")}})
	c.Close()
	c = open(t, dir)
	if got := content(c); !maps.Equal(got, map[string]string{"a": "a", "c": "c"}) {
		t.Errorf("set after a restart: %v", got)
	}
}

func TestSubscribe(t *testing.T) {
	c := open(t, t.TempDir())
	ch, stop := c.Subscribe()
	apply(t, c, &wire.Batch{Puts: []wire.Put{put("a", 1, "a")}})
	apply(t, c, &wire.Batch{Puts: []wire.Put{put("b", 1, "b")}})
	<-ch
	select {
	case <-ch:
		t.Error("two signals for one look")
	default:
	}
	stop()
	if err := c.Clear(); err != nil {
		t.Fatal(err)
	}
	if len(c.Desired()) != 0 || !c.Hash().IsZero() || len(ch) != 0 {
		t.Error("cleared cache is not empty, or a stopped subscription heard of it")
	}
}

// Reports: latest wins; confirmed ones are never written; unconfirmed ones survive; an idle cache writes nothing.
func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "reports.log")
		size := func() int64 {
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			return fi.Size()
		}
		c := open(t, dir)
		confirm := func(changes []ReportChange) {
			b := &wire.Batch{}
			for _, ch := range changes {
				b.Puts = append(b.Puts, wire.Put{Object: *ch.Object, Once: ch.Once})
			}
			c.Confirmed(b)
		}
		say(t, c, wire.KindPodStatus, "p1", `{"status":"e30="}`)
		say(t, c, wire.KindEvent, "e1", "{}")
		changes := c.ReportChanges()
		if len(changes) != 2 {
			t.Fatalf("changes %v", changes)
		}
		confirm(changes)
		time.Sleep(2 * flushAfter)
		if n := size(); n != 0 {
			t.Errorf("confirmed reports were written: %d bytes", n)
		}
		say(t, c, wire.KindPodStatus, "p1", `{"status":"e30="}`) // the same again
		if ch := c.ReportChanges(); len(ch) != 0 {
			t.Errorf("nothing new, but %v", ch)
		}

		say(t, c, wire.KindPodStatus, "p1", `{"status":"MQ=="}`)
		say(t, c, wire.KindPodStatus, "p2", `{"gone":true}`)
		say(t, c, wire.KindPodStatus, "p2", `{"gone":true,"name":"later"}`)
		say(t, c, wire.KindEvent, "e2", "{}")
		if err := c.Forget(wire.ID{Kind: wire.KindPodStatus, UID: "p2"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * flushAfter)
		before := size()
		time.Sleep(24 * time.Hour)
		if before == 0 || size() != before {
			t.Errorf("unconfirmed reports take %d bytes, after a day %d", before, size())
		}
		c.Close()

		c = open(t, dir)
		got := map[string]bool{}
		for _, r := range c.Reports() {
			got[r.ID.UID] = r.Once
		}
		if !maps.Equal(got, map[string]bool{"p1": false, "p2": true, "e2": true}) {
			t.Errorf("after a restart: %v", got)
		}
		confirm(c.Reports())
		time.Sleep(2 * flushAfter)
		if n := size(); n != 0 {
			t.Errorf("all confirmed, but %d bytes are left", n)
		}
		if len(c.Reports()) != 1 {
			t.Errorf("standing reports after confirmation: %v", c.Reports())
		}
		c.Close()
	})
}

// A node that is dark for a year keeps its latest statuses and some recent events.
// What the agent finds out again at each start is kept for the hub, but not on disk.
func TestFleetingReports(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	say(t, c, wire.KindImage, "nginx:1", `{}`)
	say(t, c, wire.KindPodStatus, "u1", `{}`)
	if got := c.Reports(); len(got) != 2 {
		t.Errorf("reports %v", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	defer c.Close()
	if got := c.Reports(); len(got) != 1 || got[0].ID.Kind != wire.KindPodStatus {
		t.Errorf("after a restart: %v", got)
	}
}

func TestReportsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir())
		for i := range 10_000 {
			b, err := json.Marshal(map[string]string{"message": fmt.Sprint("event ", i, string(make([]byte, 300)))})
			if err != nil {
				t.Fatal(err)
			}
			say(t, c, wire.KindEvent, fmt.Sprint(i), string(b))
			say(t, c, wire.KindPodStatus, fmt.Sprint(i%20), fmt.Sprintf(`{"name":"%d"}`, i))
			if i%500 == 0 {
				time.Sleep(2 * flushAfter)
			}
		}
		// Nobody has looked so far: what came and went meanwhile is not remembered either.
		if n := len(c.reports.changed); n > maxEvents+20 {
			t.Errorf("%d changes wait for the link", n)
		}
		if n := len(c.Reports()); n > maxEvents+20 || n < maxEvents/2 {
			t.Errorf("%d reports are kept", n)
		}
		last := false
		for _, r := range c.Reports() {
			last = last || r.ID.UID == "9999" && r.ID.Kind == wire.KindEvent
		}
		if !last {
			t.Error("the newest event is gone")
		}
		if c.reports.file.size > 2*compactFrom+maxEventB {
			t.Errorf("file of %d bytes", c.reports.file.size)
		}
		c.Close()
	})
}

func FuzzLog(f *testing.F) {
	f.Add(record{typ: 'p', payload: []byte("x")}.appendTo(nil))
	f.Add(append(record{typ: 'p', payload: []byte("x")}.appendTo([]byte("noise")), 0xc5, 0x9a, 0xff))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, end, _ := parseLog(b)
		if end > len(b) {
			t.Fatal("end beyond the file")
		}
		var again []byte
		for _, r := range records {
			again = r.appendTo(again)
		}
		if back, _, damaged := parseLog(again); len(back) != len(records) || damaged != 0 {
			t.Error("records are not the same after a round trip")
		}
	})
}

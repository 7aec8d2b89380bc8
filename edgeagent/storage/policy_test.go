package storage

import (
	"strings"
	"testing"
)

// TestPolicy covers what is done about a disk at which fill.
func TestPolicy(t *testing.T) {
	const gib = int64(1) << 30
	disk := func(total, free int64) Space { return Space{Total: total, Free: free, Inodes: 1000, FreeNode: 500} }
	for _, c := range []struct {
		name     string
		s        Space
		pressure bool
		collect  int64
	}{
		{"half full", disk(100*gib, 50*gib), false, 0},
		{"just below high", disk(100*gib, 15*gib+1), false, 0},
		{"high", disk(100*gib, 15*gib), false, 5 * gib},
		{"at the floor", disk(50*gib, 5*gib), false, 5 * gib},
		{"below the floor", disk(50*gib, 5*gib-1), true, 50 * gib},
		{"at the floor of a large disk", disk(1000*gib, 8*gib), false, 192 * gib},
		{"below it", disk(1000*gib, 8*gib-1), true, 1000 * gib},
		{"a small card keeps more than a tenth", disk(1*gib, 120<<20), true, gib},
		{"a tiny disk keeps a quarter", disk(64<<20, 15<<20), true, 64 << 20},
		{"a tiny disk above it", disk(64<<20, 20<<20), false, 0},
		{"no inodes left", Space{Total: 100 * gib, Free: 90 * gib, Inodes: 1000, FreeNode: 49}, true, 100 * gib},
		{"inodes are not counted", Space{Total: 100 * gib, Free: 90 * gib}, false, 0},
		{"unknown", Space{}, false, 0},
	} {
		p := Default()
		if got := p.Pressure(c.s); got != c.pressure {
			t.Errorf("%s: pressure %v", c.name, got)
		}
		if got := p.Collect(c.s); got != c.collect {
			t.Errorf("%s: collect %d, want %d", c.name, got, c.collect)
		}
	}
	p := Default()
	p.Floor = Amount{Bytes: 2 * gib}
	if p.Pressure(disk(100*gib, 2*gib)) || !p.Pressure(disk(100*gib, 2*gib-1)) {
		t.Error("a floor in bytes is not kept to")
	}
}

func TestParseAmount(t *testing.T) {
	for text, want := range map[string]Amount{"10%": {Percent: 10}, "7.5%": {Percent: 7.5}, "500Mi": {Bytes: 500 << 20}, "0": {}} {
		if got, err := ParseAmount(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "100%", "-1%", "NaN%", "-5Mi", "much"} {
		if got, err := ParseAmount(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
	bad := Default()
	bad.Low = 85
	if err := bad.Check(); err == nil || !strings.Contains(err.Error(), "85%") {
		t.Errorf("low not below high: %v", err)
	}
}

func TestLook(t *testing.T) {
	s, err := Look(t.TempDir())
	if err != nil || s.Total <= 0 || s.Free < 0 || s.Free > s.Total {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Look("/no/such/place"); err == nil || !strings.Contains(err.Error(), "/no/such/place") {
		t.Errorf("%v", err)
	}
}

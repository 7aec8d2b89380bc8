package svcproxy

import (
	"log/slog"
	"net/netip"
	"testing"
)

func TestShares(t *testing.T) {
	s := newShares("things", 90, slog.New(slog.DiscardHandler))
	client := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, 0, i}) }
	grab := func(c netip.Addr) (n int) {
		for s.take(c) {
			n++
		}
		return n
	}
	if n := grab(client(1)); n != 45 {
		t.Errorf("the first greedy client got %d of 90, want half", n)
	}
	if n := grab(client(2)); n != 23 {
		t.Errorf("the second got %d, want half of what is left", n)
	}
	for i := byte(3); i < 8; i++ {
		if !s.take(client(i)) {
			t.Errorf("client %d has nothing and got nothing", i)
		}
	}
	for range 45 {
		s.give(client(1))
	}
	s.give(client(2))
	if used, refused := s.counts(); used != 22+5 || refused != 2 {
		t.Errorf("%d in use, %d refused", used, refused)
	}
	if len(s.by) != 6 {
		t.Errorf("%d clients are remembered, want 6", len(s.by))
	}
	a, b := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::ffff:1%eth0")
	if shareKey(a) != shareKey(b) || shareKey(a) == shareKey(netip.MustParseAddr("fd00:0:0:1::1")) {
		t.Error("an IPv6 /64 is one client")
	}
}

func TestBudget(t *testing.T) {
	for _, c := range []struct {
		descriptors, memory uint64
		want                budget
	}{
		{1024, 1 << 30, budget{85, 128}},
		{4096, 512 << 20, budget{341, 512}},
		{524288, 1 << 30, budget{4096, 4096}},
		{1 << 20, 8 << 30, budget{32768, 4096}},
		{64, 64 << 20, budget{64, 64}},
		{0, 0, budget{32768, 4096}},
	} {
		if got := budgetFor(c.descriptors, c.memory); got != c.want {
			t.Errorf("%d descriptors, %d bytes: %+v, want %+v", c.descriptors, c.memory, got, c.want)
		}
	}
}

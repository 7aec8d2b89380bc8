package svcproxy

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"petrel.dev/petrel/internal/clientnet"
)

// shares divides something scarce among clients without a figure for each: a client may have no more of it than what is
// left for everyone else. So one client alone gets half, two greedy ones a third each, and a client that has nothing yet
// is refused only when all is gone. What was given is never taken back.
type shares struct {
	what  string // for the log
	limit int
	log   *slog.Logger

	mu      sync.Mutex
	used    int // the sum of by; at most limit
	by      map[netip.Addr]int
	refused uint64
	logged  time.Time // when a refusal was logged last
}

// refusalLogEvery is how often, at most, refusals are logged.
const refusalLogEvery = time.Minute

func newShares(what string, limit int, log *slog.Logger) *shares {
	return &shares{what: what, limit: limit, log: log, by: map[netip.Addr]int{}}
}

// take gives the client one more, or counts and logs that it has its share already.
func (s *shares) take(client netip.Addr) bool {
	client = shareKey(client)
	s.mu.Lock()
	have, left := s.by[client], s.limit-s.used
	if have < left {
		s.by[client]++
		s.used++
		s.mu.Unlock()
		return true
	}
	s.refused++
	now := time.Now()
	say := now.Sub(s.logged) >= refusalLogEvery
	if say {
		s.logged = now
	}
	total := s.refused
	s.mu.Unlock()
	if say {
		s.log.Warn("a client has its share of the service proxy and was refused more",
			"what", s.what, "client", client.String(), "has", have, "limit", s.limit, "refused", total)
	}
	return false
}

// give takes one back from the client.
func (s *shares) give(client netip.Addr) {
	client = shareKey(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	if s.by[client]--; s.by[client] <= 0 {
		delete(s.by, client)
	}
}

// counts returns how many are in use, and how often one was refused.
func (s *shares) counts() (used int, refused uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.refused
}

// shareKey is what counts as one client. The address of its network alone is a smaller key than the network.
func shareKey(a netip.Addr) netip.Addr { return clientnet.Of(a).Addr() }

package nodeapi

import (
	"context"
	"sync"
	"time"

	"petrel.dev/petrel/edgeagent/cgroupstat"
)

// CPU is a rate, so it needs two samples. Nothing is sampled while nobody asks: the first request waits firstWindow for its second
// sample, and those that follow compare with an earlier one.
const (
	firstWindow = time.Second
	minWindow   = 5 * time.Second // a younger sample is not replaced as the one to compare with
	maxWindow   = 2 * time.Minute // an older one shows too little of now
)

// machineKey is the machine among the cgroups.
const machineKey = ""

// samples is one look at everything, by cgroup.
type samples map[string]cgroupstat.Usage

// measured is what was used, and how fast.
type measured struct {
	now    samples
	cores  map[string]float64 // rate of CPU, in processors; of those that are in both samples
	window time.Duration
}

// sampler measures, one request at a time.
type sampler struct {
	read func() samples

	mu   sync.Mutex
	base samples   // to compare with; nil: none; guarded by mu
	at   time.Time // when base was taken; guarded by mu
}

// measure returns what is used at the moment. A request may wait for firstWindow, for its own or for another's.
func (s *sampler) measure(ctx context.Context) (measured, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil || time.Since(s.at) > maxWindow {
		s.base, s.at = s.read(), time.Now()
	}
	if wait := firstWindow - time.Since(s.at); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return measured{}, ctx.Err()
		}
	}
	now := s.read()
	m := measured{now: now, cores: map[string]float64{}, window: time.Since(s.at)}
	for key, u := range now {
		old, ok := s.base[key]
		if took := u.At.Sub(old.At); ok && u.HasCPU && old.HasCPU && took > 0 && u.CPU >= old.CPU {
			m.cores[key] = float64(u.CPU-old.CPU) / float64(took)
		}
	}
	if m.window >= minWindow {
		s.base, s.at = now, time.Now()
	}
	return m, nil
}

package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

const (
	queueBytes = 8 << 20
	// leastBytes is what a line counts at least, so that the number of lines has a bound too.
	leastBytes = 2 << 10
	// patience is how long a request waits for room in the queue.
	patience = time.Second
	// batchBytes is how much is written at a time, or one line.
	batchBytes = 1 << 20
	// reportPause is how often the hub's log says that events were dropped, at most.
	reportPause = 10 * time.Second
)

// sink takes lines from requests, and writes them from one goroutine.
type sink struct {
	file  *file // owned by run
	log   *slog.Logger
	room  *semaphore.Weighted // queueBytes of it
	queue chan []byte         // has room for as many lines as room lets in

	counts   counts
	reported struct { // owned by run
		at      time.Time // when the last report was
		dropped uint64    // counts.dropped, at that time
	}
}

func openSink(cfg Config, log *slog.Logger) (*sink, error) {
	f, err := openFile(cfg, log)
	if err != nil {
		return nil, err
	}
	return &sink{file: f, log: log, room: semaphore.NewWeighted(queueBytes), queue: make(chan []byte, queueBytes/leastBytes)}, nil
}

func weight(line []byte) int64 { return max(leastBytes, int64(len(line))) }

// record queues an event, as it is now. When there is no room within the patience, the event is dropped and counted.
func (s *sink) record(e *auditv1.Event) {
	s.counts.events.Add(1)
	text, err := line(e)
	if err != nil || weight(text) > queueBytes {
		s.counts.dropped.Add(1)
		return
	}
	if !s.room.TryAcquire(weight(text)) {
		ctx, cancel := context.WithTimeout(context.Background(), patience) // not the request's: it may have ended
		defer cancel()
		if s.room.Acquire(ctx, weight(text)) != nil {
			s.counts.dropped.Add(1)
			return
		}
	}
	s.queue <- text
}

// run writes until ctx ends, and then what is still in the queue.
func (s *sink) run(ctx context.Context) error {
	for {
		select {
		case first := <-s.queue:
			s.write(first)
			continue
		case <-ctx.Done():
		}
		select {
		case first := <-s.queue:
			s.write(first)
		default:
			s.report(true)
			return s.file.close()
		}
	}
}

// write writes a line, and those that have queued up behind it. A full disk costs the lines, not the hub.
func (s *sink) write(first []byte) {
	batch, lines := first, uint64(1)
	weights := weight(first)
	for more := true; more && len(batch) < batchBytes; {
		select {
		case next := <-s.queue:
			batch, lines, weights = append(batch, next...), lines+1, weights+weight(next)
		default:
			more = false
		}
	}
	n, err := s.file.write(batch)
	if err != nil {
		lines -= uint64(bytes.Count(batch[:n], []byte("\n"))) // those before the disk was full are there
		s.counts.dropped.Add(lines)
		s.log.Debug("audit events could not be written", "events", lines, "error", err)
	}
	s.room.Release(weights) // when all is counted
	s.report(false)
}

// report logs how many events were dropped, at most once in a while.
func (s *sink) report(last bool) {
	dropped := s.counts.dropped.Load()
	events := dropped - s.reported.dropped
	if events == 0 || !last && time.Since(s.reported.at) < reportPause {
		return
	}
	s.reported.at, s.reported.dropped = time.Now(), dropped
	err := s.file.failure
	if err == nil {
		err = errors.New("requests came faster than they could be written")
	}
	s.log.Error("audit events were dropped", "events", events, "error", fmt.Errorf("audit log: %w", err))
}

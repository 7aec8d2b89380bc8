package doctor

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Speed is how fast a disk was in a short trial.
type Speed struct {
	Write, Read int64 // bytes a second, of a file that is written and read from its beginning to its end
	Syncs       int64 // blocks of 4 KiB a second, each on the disk before the next: what a hub's store and an agent's cache do
}

// What a trial writes and how long each of its three parts may take. A card of the slowest kind (10 MB/s, 30 blocks a second) is
// measured well, and no card is worn by it.
const (
	trialChunk = mebi
	trialSize  = 16 * trialChunk
	trialBlock = 4096
	trialSyncs = 128
	trialTime  = 1500 * time.Millisecond
)

// Below these a disk makes a hub or an agent slow: images take minutes to unpack, and each change waits.
const (
	slowWrite = 5 * mebi
	slowRead  = 10 * mebi
	slowSyncs = 25
)

// MeasureDisk writes a file of at most 16 MiB in a directory, reads it and takes it away again; it takes some seconds on a slow card. The file has
// no name while it is there, so that a power cut leaves nothing.
func MeasureDisk(dir string) (s Speed, err error) {
	f, err := os.CreateTemp(dir, ".petrel-speed-")
	if err != nil {
		return s, fmt.Errorf("disk trial: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := os.Remove(f.Name()); err != nil {
		return s, fmt.Errorf("disk trial: %w", err)
	}
	if err := s.measure(f); err != nil {
		return s, fmt.Errorf("disk trial: %w", err)
	}
	return s, nil
}

func (s *Speed) measure(f *os.File) error {
	chunk := make([]byte, trialChunk)
	for i := range chunk {
		chunk[i] = byte(i * 131 >> 3) // not all the same: some memories store that in no time
	}
	began, size := time.Now(), int64(0)
	for size < trialSize && time.Since(began) < trialTime {
		n, err := f.WriteAt(chunk, size)
		if err != nil {
			return err
		}
		size += int64(n)
		if err := unix.Fdatasync(int(f.Fd())); err != nil { // otherwise memory is measured
			return err
		}
	}
	s.Write = rate(size, time.Since(began))
	// What has been written is still in memory; the kernel forgets it when it is asked to.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	began = time.Now()
	read := int64(0)
	for read < size && time.Since(began) < trialTime {
		n, err := f.ReadAt(chunk, read)
		if err != nil {
			return err
		}
		read += int64(n)
	}
	s.Read = rate(read, time.Since(began))
	began = time.Now()
	blocks := int64(0)
	for blocks < trialSyncs && time.Since(began) < trialTime {
		if _, err := f.WriteAt(chunk[:trialBlock], blocks*trialBlock*7%size); err != nil { // here and there
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		blocks++
	}
	s.Syncs = rate(blocks, time.Since(began))
	return nil
}

// rate returns how many a second.
func rate(n int64, took time.Duration) int64 {
	return int64(float64(n) / max(took.Seconds(), 1e-6))
}

// diskSpeed measures the disk that the data directory lies on, or will, when the machine has a measure.
func diskSpeed(m Machine) Finding {
	dir := m.dataAncestor()
	if free, _, err := m.Space(dir); err == nil && free < 4*trialSize {
		return Finding{Result: Warn, What: "not measured: the disk is too full for it", Do: "free space first"}
	}
	s, err := m.Speed(dir)
	if err != nil {
		return Finding{Result: Warn, What: "not measured: " + err.Error(), Do: "run it as root, or choose another --data-dir"}
	}
	f := Finding{Result: OK, What: fmt.Sprintf("writes %d MiB/s, reads %d MiB/s, %d synchronised writes a second", s.Write/mebi, s.Read/mebi, s.Syncs)}
	if s.Write < slowWrite || s.Read < slowRead || s.Syncs < slowSyncs {
		f.Result = Warn
		f.Do = "a card of application class A1 or A2, or a disk at USB, is faster; a card that was faster before may be near its end"
	}
	return f
}

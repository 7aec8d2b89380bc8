package podlog

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// punchHole gives the blocks of a file up to end back to the file system; the file keeps its size.
func punchHole(f *os.File, end int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, end)
}

// kept is how many bytes of one stream may be unread: what rotation keeps of the log.
func (p *Pump) kept() int64 { return p.MaxSize * int64(p.MaxFiles) }

// catchUp passes over output that would be rotated away before anyone could read it, so that the spool of a container
// which writes faster than this can read, or has written while no agent ran, does not grow without end. The space of what
// is passed over is free at once: nothing can be written to the log before when the spool has filled the disk.
func (p *Pump) catchUp(s *spool) {
	fi, err := s.file.Stat()
	if err != nil {
		return
	}
	over := fi.Size() - s.offset - p.kept()
	if over <= 0 {
		return
	}
	if !s.passed {
		s.passed = true
		p.log.Warn("container writes faster than its log can be written, passing over what rotation would drop", "file", s.out.path, "bytes", over)
	}
	s.offset += over
	buf := make([]byte, MaxLine)
	n, _ := s.file.ReadAt(buf, s.offset)
	s.offset += int64(bytes.IndexByte(buf[:n], '\n') + 1) // the line that was cut goes as a whole
	s.ahead = max(s.ahead, s.offset)
	p.release(s)
}

// release gives the space of what has been read back to the file system.
func (p *Pump) release(s *spool) {
	if s.offset-s.freed < punchEvery {
		return
	}
	end := s.offset &^ 4095
	if err := p.punch(s.file, end); err != nil {
		p.shorten(s)
		return
	}
	s.freed = end
}

// shorten is release on a file system without holes: it cuts the file to nothing, and the writer, which appends, goes on
// at its beginning. It waits for a moment in which all is read; what is written between that look and the cut, a matter
// of microseconds, is lost. Of a container that never lets such a moment come, what is unread goes too once the file is
// twice as long as what is kept of the log.
func (p *Pump) shorten(s *spool) {
	fi, err := s.file.Stat()
	if err != nil || fi.Size() != s.offset && fi.Size() <= 2*p.kept() {
		return
	}
	if lost := fi.Size() - s.offset; lost > 0 && !s.passed {
		s.passed = true
		p.log.Warn("container writes faster than its log can be written, on a file system without holes: dropping what is unread", "file", s.out.path, "bytes", lost)
	}
	if err := s.file.Truncate(0); err != nil {
		p.log.Warn("spool of container log not shortened", "file", s.file.Name(), "error", err)
		return
	}
	s.offset, s.ahead, s.freed = 0, 0, 0
}

package podlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/contain"
)

const (
	// MaxLine is where a line is cut into parts, as container runtimes do it.
	MaxLine = 16 << 10
	// punchEvery is how much is read before its space in the spool is given back.
	punchEvery = 256 << 10
	// turn is how much is read of one spool before it is another's turn: a container that writes faster than this can
	// read must hold up neither the others nor those who wait for the lock.
	turn = 128 << 10
)

// Pump turns spools into logs. One goroutine, Run's, reads all of them.
type Pump struct {
	// MaxSize of one log file in bytes, MaxFiles of one container's log; 10 MiB and 5 as kubelet has them, when zero.
	MaxSize  int64
	MaxFiles int
	log      *slog.Logger
	now      func() time.Time
	punch    func(f *os.File, end int64) error // gives back the space of a file up to end

	notify *os.File // inotify
	fd     int

	mu      sync.Mutex
	logs    map[string]*output // by path
	watches map[int32]*spool
	behind  map[*spool]bool // there may be more to read
}

// output is the log of one container.
type output struct {
	path   string
	file   *os.File
	size   int64
	spools [2]*spool
	subs   map[chan Chunk]struct{}
	wakes  map[chan struct{}]struct{}
}

// spool is one stream of a container on its way to the log.
type spool struct {
	out    *output
	stream string
	file   *os.File
	offset int64 // read, and in the log, up to here
	ahead  int64 // handed to subscribers up to here
	freed  int64
	watch  int32
	passed bool // output was passed over, and this has been logged
	failed bool // the last write to the log failed, and this has been logged
}

// Chunk is output of a container as it came.
type Chunk struct {
	Stderr bool
	Data   []byte
}

// NewPump makes a pump.
func NewPump(log *slog.Logger) (*Pump, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("container logs: inotify: %w", err)
	}
	return &Pump{MaxSize: 10 << 20, MaxFiles: 5, log: log, now: time.Now, punch: punchHole, notify: os.NewFile(uintptr(fd), "inotify"), fd: fd,
		logs: map[string]*output{}, watches: map[int32]*spool{}, behind: map[*spool]bool{}}, nil
}

// SpoolPaths are the files that a container's stdout and stderr go to; Prepare makes them.
func SpoolPaths(path string) (stdout, stderr string) { return path + ".stdout", path + ".stderr" }

// Prepare makes the spool of a log, empty.
func Prepare(path string) error {
	out, errs := SpoolPaths(path)
	for _, p := range []string{out, errs} {
		f, err := os.OpenFile(p, os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("container log: %w", err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Add follows the spool of a log from where it was left. Adding it again does nothing.
func (p *Pump) Add(path string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logs[path] != nil {
		return nil
	}
	o := &output{path: path, subs: map[chan Chunk]struct{}{}, wakes: map[chan struct{}]struct{}{}}
	offsets := readOffsets(path)
	names := [2]string{}
	names[0], names[1] = SpoolPaths(path)
	for i, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // finished in an earlier life
		}
		if err != nil {
			o.close()
			return fmt.Errorf("container log: %w", err)
		}
		s := &spool{out: o, stream: [2]string{"stdout", "stderr"}[i], file: f, offset: offsets[i], ahead: offsets[i], freed: offsets[i]}
		if fi, err := f.Stat(); err == nil && fi.Size() < s.offset {
			s.offset, s.ahead, s.freed = 0, 0, 0 // not the file that the offset was of
		}
		wd, err := unix.InotifyAddWatch(p.fd, name, unix.IN_MODIFY)
		if err != nil {
			f.Close()
			o.close()
			return fmt.Errorf("container log: watch %s: %w", name, err)
		}
		s.watch = int32(wd)
		o.spools[i] = s
		p.watches[s.watch] = s
	}
	if o.spools[0] == nil && o.spools[1] == nil {
		return nil
	}
	p.logs[path] = o
	for _, s := range o.spools {
		if s != nil && p.drain(s, false) {
			p.behind[s] = true
			p.interrupt()
		}
	}
	return nil
}

// interrupt has Run look at what is behind.
func (p *Pump) interrupt() { _ = p.notify.SetReadDeadline(time.Unix(1, 0)) }

// Finish takes what is left in the spool of a container that has ended, and deletes the spool. It need not have been
// added before.
func (p *Pump) Finish(path string) {
	if err := p.Add(path); err != nil {
		p.log.Warn("end of container log not read", "file", path, "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.logs[path]
	if o == nil {
		return
	}
	for _, s := range o.spools {
		for s != nil && p.drain(s, true) {
			p.mu.Unlock() // others may have a turn
			p.mu.Lock()
			if p.logs[path] != o {
				return // another goroutine has finished it
			}
		}
	}
	for _, s := range o.spools {
		if s == nil {
			continue
		}
		_, _ = unix.InotifyRmWatch(p.fd, uint32(s.watch))
		delete(p.watches, s.watch)
		delete(p.behind, s)
		_ = os.Remove(s.file.Name())
	}
	_ = os.Remove(path + ".offsets")
	o.close()
	for c := range o.subs {
		close(c)
	}
	for c := range o.wakes {
		close(c)
	}
	delete(p.logs, path)
}

func (o *output) close() {
	for _, s := range o.spools {
		if s != nil {
			s.file.Close()
		}
	}
	if o.file != nil {
		o.file.Close()
		o.file = nil
	}
}

// Run reads until ctx ends.
func (p *Pump) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.interrupt)
	defer stop()
	buf := make([]byte, 4096)
	for {
		n, err := p.wait(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("container logs: %w", err)
		}
		p.touched(buf[:n])
		for _, s := range p.late() {
			p.step(s)
		}
	}
}

// step takes one turn's worth of a spool. A panic in it leaves that spool alone until its container writes again.
func (p *Pump) step(s *spool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	more := false
	contain.Go(p.log, "podlog/step", s.out.path, func() { more = p.watches[s.watch] == s && p.drain(s, false) })
	if !more {
		delete(p.behind, s)
	}
}

// wait reads the kernel's events; it does not wait for them while something is behind.
func (p *Pump) wait(buf []byte) (int, error) {
	if len(p.late()) == 0 {
		n, err := p.notify.Read(buf)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		return 0, p.notify.SetReadDeadline(time.Time{})
	}
	n, err := unix.Read(p.fd, buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return 0, nil
	}
	return max(n, 0), err
}

// touched notes the spools that have been written to.
func (p *Pump) touched(events []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := events; len(b) >= unix.SizeofInotifyEvent; {
		wd := int32(binary.NativeEndian.Uint32(b))
		b = b[unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])):]
		if s := p.watches[wd]; s != nil {
			p.behind[s] = true
		} else if wd == -1 { // the kernel's queue was full: look everywhere
			for _, s := range p.watches {
				p.behind[s] = true
			}
		}
	}
}

func (p *Pump) late() []*spool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.behind))
}

// drain moves complete lines of a spool to the log, one turn's worth; with all, an unfinished last line too. It reports
// whether there may be more. The caller holds mu.
func (p *Pump) drain(s *spool, all bool) (more bool) {
	p.catchUp(s)
	buf := make([]byte, 64<<10)
	for end := s.offset + turn; s.offset < end; {
		n, err := s.file.ReadAt(buf, s.offset)
		if err != nil && err != io.EOF {
			p.log.Warn("container log not read", "file", s.file.Name(), "error", err)
			return false
		}
		data := buf[:n]
		if from := s.ahead - s.offset; from < int64(n) {
			s.out.send(Chunk{Stderr: s.stream == "stderr", Data: bytes.Clone(data[from:])})
			s.ahead = s.offset + int64(n)
		}
		used, err := p.lines(s, data, all && n < len(buf))
		if err != nil {
			if !s.failed { // a full disk is logged once, not at every line
				p.log.Warn("container log not written", "file", s.out.path, "error", err)
			}
			s.failed = true
			return false
		}
		s.failed = false
		s.offset += int64(used)
		if more = used > 0; !more {
			break
		}
	}
	p.release(s)
	s.out.saveOffsets()
	return more
}

// lines writes the lines in data to the log and returns how many bytes they took.
func (p *Pump) lines(s *spool, data []byte, all bool) (int, error) {
	var out bytes.Buffer
	stamp := p.now().UTC().Format(time.RFC3339Nano)
	used := 0
	for used < len(data) {
		rest := data[used:]
		end, tag := bytes.IndexByte(rest, '\n'), "F"
		skip := 1
		switch {
		case end > MaxLine || end < 0 && len(rest) >= MaxLine:
			end, tag, skip = MaxLine, "P", 0
		case end < 0 && !all:
			return used, s.out.write(p, out.Bytes())
		case end < 0: // the container has ended without a newline: as containerd marks it, so that no reader adds one
			end, tag, skip = len(rest), "P", 0
		}
		fmt.Fprintf(&out, "%s %s %s ", stamp, s.stream, tag)
		out.Write(rest[:end])
		out.WriteByte('\n')
		used += end + skip
	}
	return used, s.out.write(p, out.Bytes())
}

// write appends to the log, and turns to a new file when it has become too long.
func (o *output) write(p *Pump, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if o.file == nil {
		f, err := os.OpenFile(o.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return err
		}
		fi, err := f.Stat()
		if err != nil {
			f.Close()
			return err
		}
		o.file, o.size = f, fi.Size()
	}
	n, err := o.file.Write(b)
	if err != nil {
		_ = o.file.Truncate(o.size) // half of it is worse than none: it will be written again
		return err
	}
	o.size += int64(n)
	if o.size >= p.MaxSize {
		o.rotate(p.MaxFiles)
	}
	for c := range o.wakes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return nil
}

// rotate makes path.1 of path, path.2 of path.1, and so on.
func (o *output) rotate(files int) {
	o.file.Close()
	o.file = nil
	for n := files - 1; n > 0; n-- {
		_ = os.Rename(rotated(o.path, n-1), rotated(o.path, n))
	}
	if files <= 1 {
		_ = os.Remove(o.path)
	}
}

func rotated(path string, n int) string {
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}

func (o *output) send(c Chunk) {
	for ch := range o.subs {
		select {
		case ch <- c:
		default: // a reader that does not keep up loses output, the container does not wait
		}
	}
}

func (o *output) saveOffsets() {
	var b [16]byte
	for i, s := range o.spools {
		if s != nil {
			binary.LittleEndian.PutUint64(b[8*i:], uint64(s.offset))
		}
	}
	f, err := os.OpenFile(o.path+".offsets", os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return // worst case: lines are written twice after a restart
	}
	_, _ = f.WriteAt(b[:], 0)
	f.Close()
}

func readOffsets(path string) [2]int64 {
	b, err := os.ReadFile(path + ".offsets")
	if err != nil || len(b) != 16 {
		return [2]int64{}
	}
	return [2]int64{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))}
}

// Subscribe yields a running container's output from now on, unchanged; the channel is closed at its end. false: the
// log is not being written.
func (p *Pump) Subscribe(path string) (<-chan Chunk, func(), bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.logs[path]
	if o == nil {
		return nil, nil, false
	}
	c := make(chan Chunk, 256)
	o.subs[c] = struct{}{}
	return c, func() {
		p.mu.Lock()
		delete(o.subs, c)
		p.mu.Unlock()
	}, true
}

// wake yields a signal each time the log has grown; nil when it is not being written.
func (p *Pump) wake(path string) (chan struct{}, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.logs[path]
	if o == nil {
		return nil, func() {}
	}
	c := make(chan struct{}, 1)
	o.wakes[c] = struct{}{}
	return c, func() {
		p.mu.Lock()
		delete(o.wakes, c)
		p.mu.Unlock()
	}
}

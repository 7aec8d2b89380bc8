package podlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Options of reading a log, as in v1.PodLogOptions.
type Options struct {
	Follow     bool
	Tail       int64 // lines; < 0: all
	Since      time.Time
	Timestamps bool
	Limit      int64  // bytes; 0: none
	Stream     string // "stdout", "stderr" or "" for both
}

var errLimit = errors.New("limit reached")

// reader prints entries of a log.
type reader struct {
	opt  Options
	out  io.Writer
	left int64
	rows int64 // lines still to be printed, < 0: no bound. A log that grows while it is read yields no more than was asked for
	mid  bool  // the last entry was part of a line
	rest []byte
}

// Read writes a container's log to out. With Follow it goes on while the container writes, and ends with it; what the
// agent writes to the log meanwhile is not missed. A log that does not exist is empty.
func (p *Pump) Read(ctx context.Context, path string, opt Options, out io.Writer) error {
	r := newReader(opt, out)
	var wake chan struct{}
	if opt.Follow {
		var done func()
		wake, done = p.wake(path)
		defer done()
	}
	err := r.read(ctx, func(after *os.File) []*os.File {
		p.mu.Lock() // no turning to a new file while they are opened
		defer p.mu.Unlock()
		return openFiles(path, after)
	}, wake)
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

func newReader(opt Options, out io.Writer) *reader {
	r := &reader{opt: opt, out: out, left: opt.Limit, rows: -1}
	if !opt.Follow && opt.Tail >= 0 {
		r.rows = opt.Tail
	}
	return r
}

// read prints a log's files, then what comes while wake is open. open opens the files that are newer than one, or all.
func (r *reader) read(ctx context.Context, open func(after *os.File) []*os.File, wake chan struct{}) error {
	if r.rows == 0 {
		return nil
	}
	files := open(nil)
	skip := int64(-1) // lines still to be passed over
	if r.opt.Tail >= 0 {
		var start int
		start, skip = tailStart(files, r.opt)
		closeAll(files[:start])
		files = files[start:]
	}
	var last *os.File
	var in *bufio.Reader
	defer func() {
		closeAll(files)
		if last != nil {
			last.Close()
		}
	}()
	next := func() error {
		for len(files) > 0 {
			if last != nil {
				last.Close()
			}
			last, files, r.rest = files[0], files[1:], nil
			in = bufio.NewReaderSize(last, 32<<10)
			if err := r.copy(ctx, in, &skip); err != nil {
				return err
			}
		}
		return nil
	}
	if err := next(); err != nil {
		return err
	}
	for wake != nil {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-wake:
			if in != nil {
				if err := r.copy(ctx, in, &skip); err != nil {
					return err
				}
			}
			files = open(last)
			if last != nil && len(files) > 0 { // what was written to it before the turn
				if err := r.copy(ctx, in, &skip); err != nil {
					return err
				}
			}
			if err := next(); err != nil {
				return err
			}
			if !ok {
				return nil
			}
		}
	}
	return nil
}

// openFiles opens a log's files that are newer than after, or all of them, oldest first. When after is not among them
// any more, all are newer.
func openFiles(path string, after *os.File) []*os.File {
	var old os.FileInfo
	if after != nil {
		old, _ = after.Stat()
	}
	var files []*os.File
	for n := 0; n < 64; n++ {
		f, err := os.Open(rotated(path, n))
		if err != nil {
			if n > 0 {
				break
			}
			continue // just turned: the newest is not there yet
		}
		if fi, err := f.Stat(); err == nil && old != nil && os.SameFile(fi, old) {
			f.Close()
			break
		}
		files = append(files, f)
	}
	slices.Reverse(files)
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// tailStart finds the file in which the last opt.Tail lines begin, and how many lines of it to pass over. What a
// container has left unfinished at its end is a line too. All files are at their beginnings afterwards.
func tailStart(files []*os.File, opt Options) (int, int64) {
	want := opt.Tail
	for i := len(files) - 1; i >= 0; i-- {
		n, open := int64(0), false
		in := bufio.NewReaderSize(files[i], 2*MaxLine)
		for {
			line, err := in.ReadSlice('\n')
			if e, ok := parse(line); ok && matches(e, opt) {
				if open = !e.full; e.full {
					n++
				}
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		if open && i == len(files)-1 {
			n++
		}
		if _, err := files[i].Seek(0, io.SeekStart); err != nil {
			return i, 0
		}
		if n >= want {
			return i, n - want
		}
		want -= n
	}
	return 0, 0
}

func matches(e entry, opt Options) bool {
	return (opt.Stream == "" || opt.Stream == e.stream) && !e.time.Before(opt.Since)
}

// copy prints entries up to the end of the file; skip counts the lines still to be passed over.
func (r *reader) copy(ctx context.Context, in *bufio.Reader, skip *int64) error {
	for ctx.Err() == nil {
		line, err := in.ReadBytes('\n')
		line = append(r.rest, line...)
		r.rest = nil
		if err == io.EOF {
			r.rest = line // the rest of it is being written
			return nil
		}
		if e, ok := parse(line); ok && matches(e, r.opt) {
			if *skip > 0 {
				if e.full {
					*skip--
				}
			} else if err := r.print(e); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *reader) print(e entry) error {
	var b bytes.Buffer
	if r.opt.Timestamps && !r.mid {
		b.WriteString(e.stamp)
		b.WriteByte(' ')
	}
	b.Write(e.text)
	if r.mid = !e.full; e.full {
		b.WriteByte('\n')
	}
	p := b.Bytes()
	if r.opt.Limit > 0 && int64(len(p)) >= r.left {
		if _, err := r.out.Write(p[:r.left]); err != nil {
			return err
		}
		return errLimit
	}
	r.left -= int64(len(p))
	if _, err := r.out.Write(p); err != nil {
		return err
	}
	if e.full && r.rows > 0 {
		if r.rows--; r.rows == 0 {
			return errLimit
		}
	}
	return nil
}

// entry is one line of a log file.
type entry struct {
	stamp, stream string
	time          time.Time
	full          bool
	text          []byte
}

// parse takes a line of a log file apart; false: it is not one, as after a power cut.
func parse(line []byte) (entry, bool) {
	if len(line) == 0 || line[len(line)-1] != '\n' {
		return entry{}, false
	}
	f := bytes.SplitN(line[:len(line)-1], []byte(" "), 4)
	if len(f) != 4 {
		return entry{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(f[0]))
	if err != nil {
		return entry{}, false
	}
	return entry{stamp: string(f[0]), stream: string(f[1]), time: t, full: string(f[2]) == "F", text: f[3]}, true
}

// Tail returns the end of a log as its container wrote it: at most rows lines and limit bytes.
func Tail(path string, rows, limit int) string {
	var b strings.Builder
	r := newReader(Options{Tail: int64(rows)}, &b)
	open := func(after *os.File) []*os.File { return openFiles(path, after) }
	if err := r.read(context.Background(), open, nil); err != nil && !errors.Is(err, errLimit) {
		return ""
	}
	s := b.String()
	if len(s) > limit {
		s = s[len(s)-limit:]
	}
	return s
}

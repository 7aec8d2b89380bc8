package podlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
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
	mid  bool // the last entry was part of a line
}

// Read writes a container's log to out. With Follow it goes on while the container writes, and ends with it; what the
// agent writes to the log meanwhile is not missed. A log that does not exist is empty.
func (p *Pump) Read(ctx context.Context, path string, opt Options, out io.Writer) error {
	r := &reader{opt: opt, out: out, left: opt.Limit}
	var wake chan struct{}
	if opt.Follow {
		var done func()
		wake, done = p.wake(path)
		defer done()
	}
	err := r.read(ctx, path, wake)
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

func (r *reader) read(ctx context.Context, path string, wake chan struct{}) error {
	files := existing(path)
	start := 0
	skip := int64(-1) // lines to pass over in the first file
	if r.opt.Tail >= 0 {
		start, skip = tailStart(files, r.opt)
	}
	var last *os.File
	defer func() {
		if last != nil {
			last.Close()
		}
	}()
	var in *bufio.Reader
	for i := start; i < len(files); i++ {
		f, err := os.Open(files[i])
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if last != nil {
			last.Close()
		}
		last, in = f, bufio.NewReaderSize(f, 32<<10)
		if err := r.copy(ctx, in, &skip); err != nil {
			return err
		}
	}
	for wake != nil {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-wake:
			if in == nil {
				f, err := os.Open(path)
				if err != nil {
					if !ok {
						return nil
					}
					continue
				}
				last, in = f, bufio.NewReaderSize(f, 32<<10)
			}
			if err := r.copy(ctx, in, &skip); err != nil {
				return err
			}
			if now, err := os.Stat(path); err == nil {
				if old, err := last.Stat(); err == nil && !os.SameFile(now, old) {
					f, err := os.Open(path)
					if err != nil {
						return err
					}
					last.Close()
					last, in = f, bufio.NewReaderSize(f, 32<<10)
					if err := r.copy(ctx, in, &skip); err != nil {
						return err
					}
				}
			}
			if !ok {
				return nil
			}
		}
	}
	return nil
}

// existing lists a log's files, oldest first.
func existing(path string) []string {
	var files []string
	for n := 64; n >= 0; n-- {
		if _, err := os.Stat(rotated(path, n)); err == nil {
			files = append(files, rotated(path, n))
		}
	}
	return files
}

// tailStart finds the file in which the last opt.Tail lines begin, and how many lines of it to pass over.
func tailStart(files []string, opt Options) (int, int64) {
	want := opt.Tail
	for i := len(files) - 1; i >= 0; i-- {
		n := int64(0)
		f, err := os.Open(files[i])
		if err != nil {
			continue
		}
		in := bufio.NewReaderSize(f, 32<<10)
		for {
			line, err := in.ReadSlice('\n')
			if e, ok := parse(line); ok && e.full && matches(e, opt) {
				n++
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		f.Close()
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
		if e, ok := parse(line); ok && matches(e, r.opt) {
			if *skip > 0 {
				if e.full {
					*skip--
				}
			} else if err := r.print(e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
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
	_, err := r.out.Write(p)
	return err
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

// Tail is the end of a log: at most rows lines and limit bytes.
func Tail(path string, rows, limit int) string {
	var b strings.Builder
	r := &reader{opt: Options{Tail: int64(rows)}, out: &b}
	if err := r.read(context.Background(), path, nil); err != nil {
		return ""
	}
	s := b.String()
	if len(s) > limit {
		s = s[len(s)-limit:]
	}
	return s
}

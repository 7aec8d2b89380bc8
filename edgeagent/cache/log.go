package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/seal"
)

// A record is magic (2 bytes), type (1), length of the payload (4), checksum of type, length and payload (4), payload.
// The magic lets a reader find the next good record behind a damaged one.
const (
	recordHead = 11
	maxRecord  = 16 << 20
	// A log is rewritten when it is this large and less than a quarter of it is still needed.
	compactFrom = 1 << 20
)

var (
	magic      = []byte{0xc5, 0x9a}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// record is one entry of a log. Its payload is in clear in memory, and encrypted in the file when there are keys.
type record struct {
	typ     byte
	payload []byte
	end     int64 // in the log that it was read from
}

// sealedAs is what a record of a type is bound to when it is encrypted, so that none is taken for another kind of record.
func (l *logFile) sealedAs(typ byte) string { return filepath.Base(l.path) + "/" + string(rune(typ)) }

// encode is the records as the file has them.
func (l *logFile) encode(records []record) ([]byte, error) {
	var b []byte
	for _, r := range records {
		if l.keys != nil {
			var err error
			if r.payload, err = l.keys.Seal(l.sealedAs(r.typ), r.payload); err != nil {
				return nil, fmt.Errorf("cache: %w", err)
			}
		}
		b = r.appendTo(b)
	}
	return b, nil
}

// open decrypts records that were read. stale: some are in clear, or under another key than the first. A record that does
// not open with a key that is there is as good as damaged, and left out; one under a key that is not there is an error.
func (l *logFile) open(records []record) (opened []record, stale bool, bad int, err error) {
	for _, r := range records {
		id, sealed := seal.By(r.payload)
		stale = stale || l.keys != nil && (!sealed || id != l.keys.First())
		if sealed {
			var unknown *seal.UnknownKeyError
			payload, err := l.keys.Open(l.sealedAs(r.typ), r.payload)
			if errors.As(err, &unknown) {
				return nil, false, 0, fmt.Errorf("cache: %s: %w; give the file that holds it with --cache-key-file; if it is lost, remove %s, and the hub sends everything again", l.path, err, filepath.Dir(l.path))
			}
			if err != nil {
				bad++
				continue
			}
			r.payload = payload
		}
		opened = append(opened, r)
	}
	return opened, stale, bad, nil
}

func (r record) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, r.typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.payload)))
	sum := crc32.Update(crc32.Checksum(b[start+2:], castagnoli), castagnoli, r.payload)
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(b, r.payload...)
}

// parseRecord reads the record at the start of b; ok is false when there is no good one.
func parseRecord(b []byte) (r record, size int, ok bool) {
	if len(b) < recordHead || !bytes.HasPrefix(b, magic) {
		return record{}, 0, false
	}
	n := binary.BigEndian.Uint32(b[3:7])
	if n > maxRecord || uint64(len(b)) < recordHead+uint64(n) {
		return record{}, 0, false
	}
	payload := b[recordHead : recordHead+n : recordHead+n]
	sum := crc32.Update(crc32.Checksum(b[2:7], castagnoli), castagnoli, payload)
	if sum != binary.BigEndian.Uint32(b[7:11]) {
		return record{}, 0, false
	}
	return record{typ: b[2], payload: payload}, recordHead + int(n), true
}

// parseLog returns all good records, how many bytes they end at, and how many damaged places lie before that end. What
// follows the last good record is the torn end of an interrupted write.
func parseLog(b []byte) (records []record, end, damaged int) {
	hole := false
	for at := 0; at < len(b); {
		r, n, ok := parseRecord(b[at:])
		if !ok {
			hole = true
			next := bytes.Index(b[at+1:], magic)
			if next < 0 {
				break
			}
			at += 1 + next
			continue
		}
		if hole {
			damaged++
			hole = false
		}
		at += n
		end = at
		r.end = int64(end)
		records = append(records, r)
	}
	return records, end, damaged
}

// logFile is an append-only file of records. It is not safe for concurrent use.
type logFile struct {
	path string
	keys *seal.Keys // nil: in clear
	f    *os.File
	size int64
}

// openLog opens or makes the log, gives its good records, and cuts off a torn end. stale: the log should be rewritten, since not
// all of it is encrypted with the first key.
func openLog(path string, keys *seal.Keys) (l *logFile, records []record, stale bool, damaged int, err error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, 0, fmt.Errorf("cache: read %s: %w", path, err)
	}
	read, end, damaged := parseLog(b)
	l = &logFile{path: path, keys: keys, size: int64(end)}
	records, stale, bad, err := l.open(read)
	if err != nil {
		return nil, nil, false, 0, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, false, 0, fmt.Errorf("cache: open %s: %w", path, err)
	}
	if end < len(b) {
		// A failure here is harmless: the next reader skips the torn bytes as well.
		_ = f.Truncate(int64(end))
	}
	if b == nil {
		if err := durable.SyncDir(filepath.Dir(path)); err != nil {
			f.Close()
			return nil, nil, false, 0, fmt.Errorf("cache: sync the directory of %s: %w", path, err)
		}
	}
	l.f = f
	return l, records, stale, damaged + bad, nil
}

// append writes records behind the last and returns when they are durable. After an error the log is as before.
func (l *logFile) append(records []record) error {
	b, err := l.encode(records)
	if err != nil {
		return err
	}
	if _, err := l.f.WriteAt(b, l.size); err != nil {
		_ = l.f.Truncate(l.size)
		return fmt.Errorf("cache: write %s: %w", l.path, err)
	}
	if err := l.f.Sync(); err != nil {
		_ = l.f.Truncate(l.size)
		return fmt.Errorf("cache: sync %s: %w", l.path, err)
	}
	l.size += int64(len(b))
	return nil
}

// rewrite replaces the whole log by records, atomically.
func (l *logFile) rewrite(records []record) error {
	b, err := l.encode(records)
	if err != nil {
		return err
	}
	f, err := durable.Replace(l.path, b, 0o600)
	if f != nil { // in place, even if its name may not be on disk yet
		l.f.Close()
		l.f, l.size = f, int64(len(b))
	}
	if err != nil {
		return fmt.Errorf("cache: rewrite %s: %w", l.path, err)
	}
	return nil
}

// cut makes the log end at size. A failure is harmless: the next write goes there, and the next reader cuts again.
func (l *logFile) cut(size int64) {
	if size < l.size {
		_ = l.f.Truncate(size)
		l.size = size
	}
}

func (l *logFile) wasteful(live int64) bool { return l.size > compactFrom && live*4 < l.size }

func (l *logFile) close() error { return l.f.Close() }

// Package sealed is a Store over a Store: what lies below certain prefixes is encrypted on its way in and decrypted on its
// way out. The engine, its history, its file and its backups hold cipher text only; revisions, watches and preconditions are
// the engine's own.
//
//	Op{Key, Value, RevAt} ──► seal(Key, uvarint(RevAt+1) + Value) + "\n" + hole for the revision ──► engine
//
// A stored object carries its own revision, which only the engine knows, at the moment of commit. So the hole for its digits
// stays outside of the cipher text, at the end of the value; the place where they belong is inside. Who reads gets the value
// with the digits in place. They can be read, and changed, without the key, as the key of the entry and its size can.
//
// Values in clear are read as they are, so that encryption can be turned on for a store that has been in use; [Store.Reseal]
// writes them again. The additional data of the cipher is the entry's key: one object's value does not open as another's.
package sealed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/sqlstore"
)

// pageSize is how many entries are looked at together.
const pageSize = 500

// Store encrypts with the first of its keys. All methods are safe for concurrent use.
type Store struct {
	inner sqlstore.Store
	keys  atomic.Pointer[seal.Keys] // nil: nothing is encrypted, and nothing below prefixes was; replaced by SetKeys
	// writing is held for reading from when a value is encrypted until it is stored, and for writing while keys are replaced: so after
	// SetKeys has returned, nothing that is still to be stored is encrypted with the key that was the first before.
	writing  sync.RWMutex
	prefixes []string
}

// LockedError means that a store holds something that the keys at hand do not open.
type LockedError struct {
	Key string
	Err error // *seal.UnknownKeyError, *seal.ForgedError
}

func (e *LockedError) Error() string { return fmt.Sprintf("%s cannot be read: %v", e.Key, e.Err) }
func (e *LockedError) Unwrap() error { return e.Err }

// Open returns a Store that encrypts values of keys with one of the prefixes. It reads all of them: *LockedError when one
// does not open. keys may be nil; then nothing is encrypted, and an encrypted value is a *LockedError.
func Open(ctx context.Context, inner sqlstore.Store, keys *seal.Keys, prefixes ...string) (*Store, error) {
	s := &Store{inner: inner, prefixes: prefixes}
	s.keys.Store(keys)
	err := s.each(ctx, func(e sqlstore.Entry) error {
		_, err := s.open(e.Key, e.Value)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// SetKeys replaces the keys. The key that seals now must be among the new ones, because writes go on meanwhile, and they must open all
// that is stored: otherwise nothing changes, and the error is a *LockedError where a value is the reason. It waits for the writes that
// are under way, which are still encrypted with the earlier key: a Reseal that comes after finds what they have stored.
func (s *Store) SetKeys(ctx context.Context, keys *seal.Keys) error {
	now := s.keys.Load()
	if now == nil || keys == nil {
		return errors.New("encryption cannot be turned on or off while the store is open")
	}
	if !keys.Has(now.First()) {
		return fmt.Errorf("the key %s, which encrypts now, is not among the new ones", now.First())
	}
	err := s.each(ctx, func(e sqlstore.Entry) error {
		if id, ok := seal.By(e.Value); ok && !keys.Has(id) {
			return &LockedError{Key: e.Key, Err: &seal.UnknownKeyError{ID: id}}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.keys.Store(keys)
	return nil
}

// each calls f for each entry below the prefixes as the engine has it, until f fails.
func (s *Store) each(ctx context.Context, f func(sqlstore.Entry) error) error {
	for _, prefix := range s.prefixes {
		for after, more := "", true; more; {
			p, err := s.inner.List(ctx, prefix, after, pageSize, 0)
			if err != nil {
				return err
			}
			for _, e := range p.Entries {
				if err := f(e); err != nil {
					return err
				}
				after = e.Key
			}
			more = p.More
		}
	}
	return nil
}

func (s *Store) seals(key string) bool {
	for _, p := range s.prefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// Commit is sqlstore.Store's.
func (s *Store) Commit(ctx context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	if s.keys.Load() == nil {
		return s.inner.Commit(ctx, ops...)
	}
	if err := sqlstore.Check(ops); err != nil { // of the values in clear
		return nil, err
	}
	own := false // ops is the caller's
	for i := range ops {
		if ops[i].Value == nil || !s.seals(ops[i].Key) {
			continue
		}
		if !own {
			ops, own = append([]sqlstore.Op(nil), ops...), true
			s.writing.RLock()
			defer s.writing.RUnlock()
		}
		if err := s.seal(&ops[i]); err != nil {
			return nil, err
		}
	}
	return s.inner.Commit(ctx, ops...)
}

func (s *Store) seal(op *sqlstore.Op) error {
	at := max(op.RevAt, -1)
	clear := make([]byte, 0, binary.MaxVarintLen64+len(op.Value))
	clear = binary.AppendUvarint(clear, uint64(at+1))
	value, err := s.keys.Load().Seal(op.Key, append(clear, op.Value...))
	if err != nil {
		return fmt.Errorf("commit %s: %w", op.Key, err)
	}
	op.Value = append(value, '\n')
	if op.RevAt = -1; at >= 0 {
		op.RevAt = len(op.Value)
	}
	return nil
}

// open returns the value that lies encrypted in raw, and raw itself when it is in clear.
func (s *Store) open(key string, raw []byte) ([]byte, error) {
	return openWith(s.keys.Load(), key, raw)
}

// openWith is open with these keys.
func openWith(keys *seal.Keys, key string, raw []byte) ([]byte, error) {
	id, ok := seal.By(raw)
	if !ok {
		return raw, nil
	}
	end := bytes.LastIndexByte(raw, '\n') // digits only come after it
	if end < 0 {
		end = len(raw)
	}
	clear, err := keys.Open(key, raw[:end])
	if err != nil {
		return nil, &LockedError{Key: key, Err: err}
	}
	at, n := binary.Uvarint(clear)
	value := clear[max(n, 0):]
	if n <= 0 || at > uint64(len(value))+1 {
		return nil, &LockedError{Key: key, Err: &seal.ForgedError{ID: id}}
	}
	if at == 0 {
		return value, nil
	}
	return slices.Insert(value, int(at-1), raw[min(end+1, len(raw)):]...), nil
}

// Get is sqlstore.Store's.
func (s *Store) Get(ctx context.Context, key string) (sqlstore.Entry, bool, error) {
	e, ok, err := s.inner.Get(ctx, key)
	if err != nil || !ok || s.keys.Load() == nil {
		return e, ok, err
	}
	if e.Value, err = s.open(e.Key, e.Value); err != nil {
		return sqlstore.Entry{}, false, err
	}
	return e, true, nil
}

// Revision is sqlstore.Store's.
func (s *Store) Revision(ctx context.Context) (sqlstore.Revision, error) {
	return s.inner.Revision(ctx)
}

// List is sqlstore.Store's. The past under a key that has been taken away since is compacted.
func (s *Store) List(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	p, open, err := s.ListSealed(ctx, prefix, after, limit, at)
	if err != nil || open == nil {
		return p, err
	}
	p.Entries = slices.Clone(p.Entries) // they are the engine's
	for i := range p.Entries {
		if p.Entries[i].Value, err = open(p.Entries[i]); err != nil {
			return sqlstore.Page{}, err
		}
	}
	return p, nil
}

// ListSealed is sqlstore.Sealing's. A value whose key is not there any more fails at once and not in open, which has the keys of now even
// when they are replaced.
func (s *Store) ListSealed(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (p sqlstore.Page, open sqlstore.Opener, err error) {
	p, err = s.inner.List(ctx, prefix, after, limit, at)
	keys := s.keys.Load()
	if err != nil || keys == nil {
		return p, nil, err
	}
	for _, e := range p.Entries {
		id, ok := seal.By(e.Value)
		if !ok {
			continue
		}
		if !keys.Has(id) {
			return sqlstore.Page{}, nil, s.past(ctx, e.Rev, &LockedError{Key: e.Key, Err: &seal.UnknownKeyError{ID: id}})
		}
		if open == nil {
			open = func(e sqlstore.Entry) ([]byte, error) { return openWith(keys, e.Key, e.Value) }
		}
	}
	return p, open, nil
}

// past turns err into a *CompactedError when a value of the past is under a key that is not there any more.
func (s *Store) past(ctx context.Context, rev sqlstore.Revision, err error) error {
	if unknown := (*seal.UnknownKeyError)(nil); !errors.As(err, &unknown) {
		return err
	}
	now, rerr := s.inner.Revision(ctx)
	if rerr != nil {
		return rerr
	}
	return &sqlstore.CompactedError{Asked: rev, Oldest: now}
}

// Reseal writes everything again that is in clear, or under another key than the first, and returns how many entries that
// were: afterwards, and once the history before has gone, the other keys are not needed. encode makes of a value in clear
// what an Op of it has: the value without its revision, and where that belongs. What changes meanwhile needs nothing.
func (s *Store) Reseal(ctx context.Context, encode func(key string, value []byte) (without []byte, revAt int, err error)) (n int, err error) {
	if s.keys.Load() == nil {
		return 0, nil
	}
	err = s.each(ctx, func(e sqlstore.Entry) error {
		if id, ok := seal.By(e.Value); ok && id == s.keys.Load().First() {
			return nil
		}
		clear, err := s.open(e.Key, e.Value)
		if err != nil {
			return err
		}
		without, at, err := encode(e.Key, clear)
		if err != nil {
			return fmt.Errorf("encrypt %s: %w", e.Key, err)
		}
		_, err = s.Commit(ctx, sqlstore.Op{Key: e.Key, Value: without, RevAt: at, If: e.Rev})
		if conflict := (*sqlstore.ConflictError)(nil); errors.As(err, &conflict) {
			return nil // the other writer has encrypted it
		}
		if err == nil {
			n++
		}
		return err
	})
	return n, err
}

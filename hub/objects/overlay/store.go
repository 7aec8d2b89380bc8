package overlay

import (
	"context"
	"log/slog"
	"strings"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/sqlstore"
)

// Config is what a Store needs. Store and Objects are required.
type Config struct {
	Store   sqlstore.Store // below
	Objects *objects.Cache // of Store
	Log     *slog.Logger   // nil: discarded
}

// Store is the store below with synthesized objects in it. It keeps sqlstore.Store's contract.
type Store struct {
	sqlstore.Store // below
	objects        *objects.Cache
	log            *slog.Logger
	ranges         []*keyRange // in key order; they do not overlap, and do not change after New
}

var _ sqlstore.Store = (*Store)(nil)

// New returns a store over cfg.Store, or an error that names the Synthetic that is wrong.
func New(cfg Config, synthetics ...Synthetic) (*Store, error) {
	ranges, err := newRanges(synthetics)
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{Store: cfg.Store, objects: cfg.Objects, log: log, ranges: ranges}, nil
}

// at returns the range that a key, or all keys with a prefix, lie in; nil when they are stored.
func (s *Store) at(prefix string) *keyRange {
	for _, r := range s.ranges {
		if strings.HasPrefix(prefix, r.prefix) {
			return r
		}
	}
	return nil
}

// below returns the ranges whose keys all have the prefix.
func (s *Store) below(prefix string) (ranges []*keyRange) {
	for _, r := range s.ranges {
		if strings.HasPrefix(r.prefix, prefix) {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// ReadOnly returns the refusal of a write of key, an API status, or nil when key is written as usual. It also takes the
// common prefix of a collection's keys.
func (s *Store) ReadOnly(key string) error {
	if r := s.at(key); r != nil {
		return r.refusal(key)
	}
	return nil
}

// Commit implements sqlstore.Store. An op on a synthesized object is refused as ReadOnly does.
func (s *Store) Commit(ctx context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	for i := range ops {
		if err := s.ReadOnly(ops[i].Key); err != nil {
			return nil, err
		}
	}
	return s.Store.Commit(ctx, ops...)
}

// Get implements sqlstore.Store.
func (s *Store) Get(ctx context.Context, key string) (sqlstore.Entry, bool, error) {
	r := s.at(key)
	if r == nil {
		return s.Store.Get(ctx, key)
	}
	source, ok, err := s.Store.Get(ctx, r.sourceKey(key))
	if err != nil || !ok {
		return sqlstore.Entry{}, false, err
	}
	e, err := r.build(s.objects, source)
	return e, err == nil, err
}

package overlay

import (
	"context"
	"strings"

	"petrel.dev/petrel/sqlstore"
)

// List implements sqlstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	if r := s.at(prefix); r != nil {
		return s.listRange(ctx, r, prefix, after, limit, at)
	}
	ranges := s.below(prefix)
	if len(ranges) == 0 {
		return s.Store.List(ctx, prefix, after, limit, at)
	}
	m := &merge{ctx: ctx, s: s, ranges: ranges, prefix: prefix, limit: limit, at: at, last: after}
	return m.page()
}

// ListSealed implements sqlstore.Sealing. Objects of a list with synthesized ones are in clear.
func (s *Store) ListSealed(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, sqlstore.Opener, error) {
	if s.at(prefix) == nil && len(s.below(prefix)) == 0 {
		return sqlstore.ListSealed(ctx, s.Store, prefix, after, limit, at)
	}
	p, err := s.List(ctx, prefix, after, limit, at)
	return p, nil, err
}

// listRange lists keys of one range.
func (s *Store) listRange(ctx context.Context, r *keyRange, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	page, err := s.Store.List(ctx, r.sourceKey(prefix), r.sourceAfter(after), limit, at)
	if err != nil {
		return page, err
	}
	made := make([]sqlstore.Entry, len(page.Entries)) // those of page may be shared
	for i, source := range page.Entries {
		if made[i], err = r.build(s.objects, source); err != nil {
			return sqlstore.Page{}, err
		}
	}
	page.Entries = made
	return page, nil
}

// merge is one list of stored keys and of ranges that lie among them, all as of one revision.
type merge struct {
	ctx    context.Context
	s      *Store
	ranges []*keyRange // in key order
	prefix string
	limit  int // 0: all
	at     sqlstore.Revision

	out    []sqlstore.Entry
	stored []sqlstore.Entry // read and not yet taken
	more   bool             // there is more to read
	last   string           // the last key read from what is stored
}

func (m *merge) page() (sqlstore.Page, error) {
	after := m.last
	first, err := m.s.Store.List(m.ctx, m.prefix, after, m.limit, m.at)
	if err != nil {
		return first, err
	}
	m.at = first.Rev // everything that follows is read as of it
	m.have(first)
	for _, r := range m.ranges {
		if err := m.takeStored(r.prefix); err != nil {
			return sqlstore.Page{}, err
		}
		if m.full() {
			break
		}
		page, err := m.s.listRange(m.ctx, r, r.prefix, after, m.room(), m.at)
		if err != nil {
			return page, err
		}
		m.out = append(m.out, page.Entries...)
	}
	if err := m.takeStored(""); err != nil {
		return sqlstore.Page{}, err
	}
	p := sqlstore.Page{Entries: m.out, Rev: m.at}
	if m.full() {
		if p.Remain, err = m.remaining(m.out[len(m.out)-1].Key); err != nil {
			return sqlstore.Page{}, err
		}
		p.More = p.Remain > 0
	}
	return p, nil
}

func (m *merge) full() bool { return m.limit > 0 && len(m.out) == m.limit }

// room returns how many entries are still wanted; 0 means all.
func (m *merge) room() int {
	if m.limit == 0 {
		return 0
	}
	return m.limit - len(m.out)
}

// have adds a page of what is stored.
func (m *merge) have(page sqlstore.Page) {
	m.stored, m.more = page.Entries, page.More
	if n := len(m.stored); n > 0 {
		m.last = m.stored[n-1].Key
	}
}

// takeStored takes stored entries with keys before end ("": all) until the page is full. What lies in a range is hidden.
func (m *merge) takeStored(end string) error {
	for !m.full() {
		if len(m.stored) == 0 {
			if !m.more {
				return nil
			}
			page, err := m.s.Store.List(m.ctx, m.prefix, m.last, m.room(), m.at)
			if err != nil {
				return err
			}
			m.have(page)
			continue
		}
		e := m.stored[0]
		if end != "" && e.Key >= end {
			return nil
		}
		if m.s.at(e.Key) == nil {
			m.out = append(m.out, e)
		}
		m.stored = m.stored[1:]
	}
	return nil
}

// remaining returns how many keys follow the last one: those that are stored, without the hidden ones, and the synthesized.
func (m *merge) remaining(last string) (n int, err error) {
	count := func(prefix, after string) (int, error) {
		page, err := m.s.Store.List(m.ctx, prefix, after, 1, m.at)
		return len(page.Entries) + page.Remain, err
	}
	if n, err = count(m.prefix, last); err != nil {
		return 0, err
	}
	for _, r := range m.ranges {
		made, err := count(r.source, r.sourceAfter(last))
		if err != nil {
			return 0, err
		}
		hidden, err := count(r.prefix, last)
		if err != nil {
			return 0, err
		}
		n += made - hidden
	}
	return n, nil
}

// commonPrefix returns the longest prefix of both.
func commonPrefix(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[:i]
		}
	}
	if strings.HasPrefix(a, b) {
		return b
	}
	return a
}

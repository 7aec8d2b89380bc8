package replica

import (
	"context"
	"sort"
	"strings"

	"petrel.dev/petrel/sqlstore"
)

// List implements sqlstore.Store. Only history that has left memory is read from the Source.
func (l *Log) List(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	if l.closed.Load() {
		return sqlstore.Page{}, sqlstore.ErrClosed
	}
	s := l.state.Load()
	if at == 0 || at == s.rev {
		return s.list(prefix, after, limit), nil
	}
	if at < 0 || at > s.rev {
		return sqlstore.Page{}, &sqlstore.FutureError{Asked: at, Current: s.rev}
	}
	past, err := l.history.before(ctx, prefix, at, s.rev)
	switch {
	case err != nil && ctx.Err() != nil:
		return sqlstore.Page{}, ctx.Err() // a Source may only say that it was interrupted
	case err != nil:
		return sqlstore.Page{}, err
	}
	if len(past) == 0 {
		p := s.list(prefix, after, limit)
		p.Rev = at
		return p, nil
	}
	return s.listPast(prefix, after, limit, at, past), nil
}

func (s *state) list(prefix, after string, limit int) sqlstore.Page {
	p := sqlstore.Page{Rev: s.rev}
	total := s.index.remaining(prefix, after)
	n := total
	if limit > 0 && limit < n {
		n = limit
	}
	if n == 0 {
		return p
	}
	p.Entries = make([]sqlstore.Entry, 0, n)
	s.index.scan(prefix, after, func(e *sqlstore.Entry) bool {
		p.Entries = append(p.Entries, *e)
		return len(p.Entries) < n
	})
	p.Remain = total - len(p.Entries)
	p.More = p.Remain > 0
	return p
}

// listPast is list on the state with the overlay past laid over it: key → what it was, nil where it did not exist.
func (s *state) listPast(prefix, after string, limit int, at sqlstore.Revision, past map[string]*sqlstore.Entry) sqlstore.Page {
	var over []*sqlstore.Entry // existed then, in order
	for _, e := range past {
		if e != nil && (after == "" || e.Key > after) {
			over = append(over, e)
		}
	}
	sort.Slice(over, func(i, j int) bool { return strings.Compare(over[i].Key, over[j].Key) < 0 })
	p := sqlstore.Page{Rev: at}
	take := func(e *sqlstore.Entry) {
		if limit > 0 && len(p.Entries) >= limit {
			p.Remain++
			return
		}
		p.Entries = append(p.Entries, *e)
	}
	s.index.scan(prefix, after, func(e *sqlstore.Entry) bool {
		for len(over) > 0 && over[0].Key < e.Key {
			take(over[0])
			over = over[1:]
		}
		if _, changed := past[e.Key]; !changed {
			take(e)
		} else if len(over) > 0 && over[0].Key == e.Key {
			take(over[0])
			over = over[1:]
		}
		return true
	})
	for _, e := range over {
		take(e)
	}
	p.More = p.Remain > 0
	return p
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"petrel.dev/petrel/sqlstore"
)

// runModel does the same random things to the store and to Spec and compares every answer.
func runModel(t *testing.T, open func(t testing.TB) Store) {
	rapid.Check(t, func(r *rapid.T) {
		s := &scope{TB: t}
		defer s.end()
		m := &model{store: open(s), spec: &Spec{}}
		r.Repeat(map[string]func(*rapid.T){
			"":        m.compare,
			"commit":  m.commit,
			"list":    m.list,
			"watch":   m.watch,
			"next":    m.next,
			"compact": m.compact,
		})
	})
}

// scope is a testing.TB whose cleanups run at the end of one of many runs within a test.
type scope struct {
	testing.TB
	cleanups []func()
}

func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) end() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
}

type model struct {
	store    Store
	spec     *Spec
	watchers []*pair
}

type pair struct {
	store sqlstore.Watcher
	spec  *specWatcher
}

var (
	keys     = rapid.SampledFrom([]string{"/a", "/a/", "/a/1", "/a/2", "/ab", "/b/\x00", "/b/\xff", "/b/é", "c"})
	prefixes = rapid.SampledFrom([]string{"", "/", "/a", "/a/", "/b/", "/b/\xff", "c", "d"})
)

func (m *model) revision(r *rapid.T, name string) sqlstore.Revision {
	return sqlstore.Revision(rapid.Int64Range(0, int64(m.spec.last())+1).Draw(r, name))
}

func (m *model) commit(r *rapid.T) {
	ops := make([]sqlstore.Op, rapid.IntRange(1, 4).Draw(r, "ops"))
	for i := range ops {
		op := sqlstore.Op{Key: keys.Draw(r, "key"), Delete: rapid.IntRange(0, 3).Draw(r, "delete") == 0, RevAt: -1, If: sqlstore.AnyRevision}
		if !op.Delete || rapid.Bool().Draw(r, "last state") {
			op.Value = []byte(rapid.StringN(0, 8, 12).Draw(r, "value"))
			op.RevAt = rapid.IntRange(-1, len(op.Value)).Draw(r, "revAt")
		}
		switch rapid.IntRange(0, 5).Draw(r, "if") {
		case 0:
			op.If = m.revision(r, "rev")
		case 1, 2:
			e, _, _ := m.spec.Get(context.Background(), op.Key)
			op.If = e.Rev
		}
		if op.Delete && op.If == 0 {
			op.If = sqlstore.AnyRevision
		}
		ops[i] = op
	}
	got, err := m.store.Commit(context.Background(), ops...)
	want, wantErr := m.spec.Commit(context.Background(), ops...)
	equal(r, "commit", got, want)
	equal(r, "commit's error", err, wantErr)
}

func (m *model) list(r *rapid.T) {
	prefix, after := prefixes.Draw(r, "prefix"), ""
	if rapid.Bool().Draw(r, "with after") {
		after = keys.Draw(r, "after")
	}
	limit, at := rapid.IntRange(0, 3).Draw(r, "limit"), m.revision(r, "at")
	got, err := m.store.List(context.Background(), prefix, after, limit, at)
	want, wantErr := m.spec.List(context.Background(), prefix, after, limit, at)
	equal(r, "list", readable(got), readable(want))
	equal(r, "list's error", err, wantErr)
}

func (m *model) watch(r *rapid.T) {
	prefix, from := prefixes.Draw(r, "prefix"), m.revision(r, "from")
	got, err := m.store.Watch(context.Background(), prefix, from)
	want, wantErr := m.spec.Watch(context.Background(), prefix, from)
	equal(r, "watch's error", err, wantErr)
	if err == nil {
		m.watchers = append(m.watchers, &pair{store: got, spec: want.(*specWatcher)})
	}
}

// next takes what a watcher has. A store may deliver in several portions what Spec delivers at once, and may
// still have events that have been compacted since; it must never deliver less than it promises.
func (m *model) next(r *rapid.T) {
	if len(m.watchers) == 0 {
		r.Skip("no watcher")
	}
	i := rapid.IntRange(0, len(m.watchers)-1).Draw(r, "watcher")
	p := m.watchers[i]
	want, wantErr := p.spec.poll()
	if wantErr != nil {
		if _, err := p.store.Next(context.Background()); err != nil && !isCompacted(err) {
			r.Fatalf("next: %v, want events or a CompactedError", err)
		}
		p.store.Close()
		m.watchers = append(m.watchers[:i], m.watchers[i+1:]...)
		return
	}
	for len(want) > 0 {
		at := p.store.Revision()
		got, err := p.store.Next(context.Background())
		if isCompacted(err) && at < m.spec.compacted { // it had not looked since: that is its right
			p.store.Close()
			m.watchers = append(m.watchers[:i], m.watchers[i+1:]...)
			return
		}
		if err != nil || len(got) > len(want) {
			r.Fatalf("next: %v, %d events, want %d", err, len(got), len(want))
		}
		equal(r, "next", showEvents(got), showEvents(want[:len(got)]))
		want = want[len(got):]
	}
}

func isCompacted(err error) bool {
	var e *sqlstore.CompactedError
	return errors.As(err, &e)
}

func (m *model) compact(r *rapid.T) {
	to := m.revision(r, "to")
	equal(r, "compact's error", m.store.Compact(context.Background(), to), m.spec.Compact(context.Background(), to))
}

func (m *model) compare(r *rapid.T) {
	rev, err := m.store.Revision(context.Background())
	if err != nil {
		r.Fatal(err)
	}
	equal(r, "revision", rev, m.spec.last())
	got, err := m.store.List(context.Background(), "", "", 0, 0)
	want, _ := m.spec.List(context.Background(), "", "", 0, 0)
	if err != nil {
		r.Fatal(err)
	}
	equal(r, "everything", readable(got), readable(want))
	for _, p := range m.watchers {
		if p.store.Revision() > p.spec.Revision() {
			r.Fatalf("watcher at %d, the event after %d was not fetched", p.store.Revision(), p.spec.Revision())
		}
	}
}

func readable(p sqlstore.Page) string { return showPage(p, nil) + fmt.Sprint(" remain ", p.Remain) }

func equal(r *rapid.T, what string, got, want any) {
	r.Helper()
	if !reflect.DeepEqual(got, want) {
		r.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

package storetest

import (
	"context"
	"errors"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// runCalls checks what each call does when its time is over, and when the store is closed.
func runCalls(t *testing.T, open func(t testing.TB) Store) {
	t.Run("a call whose time is over answers rightly or says so", func(t *testing.T) { testCanceledReads(t, open(t)) })
	t.Run("a closed store answers nothing", func(t *testing.T) { testClosed(t, open(t)) })
}

// fill makes "/a" revision 1 and 3, and "/b" revision 2.
func fill(t *testing.T, s Store) {
	t.Helper()
	for _, key := range []string{"/a", "/b", "/a"} {
		if _, err := s.Commit(t.Context(), sqlstore.Op{Key: key, Value: []byte("x"), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
}

func testCanceledReads(t *testing.T, s Store) {
	fill(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(what string, err error, right bool) {
		t.Helper()
		if err == nil && !right || err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, a right answer: %v", what, err, right)
		}
	}
	e, ok, err := s.Get(ctx, "/a")
	check("get", err, ok && e.Rev == 3)
	rev, err := s.Revision(ctx)
	check("revision", err, rev == 3)
	for at, want := range map[sqlstore.Revision]int{0: 2, 1: 1, 2: 2} {
		p, err := s.List(ctx, "/", "", 0, at)
		check("list", err, len(p.Entries) == want)
	}
	w, err := s.Watch(ctx, "/", 1)
	check("watch", err, true)
	if err == nil {
		w.Close()
	}
	// The watcher's life is not that of the call that opened it.
	ctx, cancel = context.WithCancel(t.Context())
	if w, err = s.Watch(ctx, "/", 1); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Next(canceled(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("next: %v", err)
	}
	cancel()
	events, err := w.Next(t.Context())
	if err != nil || len(events) == 0 || events[0].Rev != 2 {
		t.Errorf("next after the opening's ctx has ended: %v, %d events", err, len(events))
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func testClosed(t *testing.T, s Store) {
	fill(t, s)
	w, err := s.Watch(t.Context(), "/", 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"get":         func() error { _, _, err := s.Get(ctx, "/a"); return err },
		"get nothing": func() error { _, _, err := s.Get(ctx, "/none"); return err },
		"revision":    func() error { _, err := s.Revision(ctx); return err },
		"list":        func() error { _, err := s.List(ctx, "/", "", 0, 0); return err },
		"list at 1":   func() error { _, err := s.List(ctx, "/", "", 0, 1); return err },
		"watch":       func() error { _, err := s.Watch(ctx, "/", 3); return err },
		"next":        func() error { _, err := w.Next(ctx); return err },
		"commit":      func() error { _, err := s.Commit(ctx, sqlstore.Op{Key: "/c", RevAt: -1}); return err },
	} {
		if err := call(); !errors.Is(err, sqlstore.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", what, err)
		}
	}
}

package memory_test

import (
	"errors"
	"fmt"
	"testing"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/memory"
	"petrel.dev/petrel/sqlstore/replica"
	"petrel.dev/petrel/sqlstore/storetest"
)

// engine makes stores for storetest.
type engine struct{}

func (engine) Open(t testing.TB) storetest.Store { return engine{}.OpenLimited(t, 0) }

func (engine) OpenLimited(t testing.TB, limit int64) storetest.Store {
	s := memory.New(memory.Config{MaxBytes: limit, Expendable: []string{storetest.ExpendablePrefix}})
	t.Cleanup(func() { s.Close() })
	return s
}

func (engine) OpenShared(t testing.TB, limit int64) storetest.Store {
	s := memory.New(memory.Config{MaxBytes: limit, Tenant: storetest.TenantOf})
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) { storetest.Run(t, engine{}) }

// TestHistoryIsBounded writes more than the store keeps: what is over goes, the rest is whole, and who asks for what is gone
// is sent back to a list.
func TestHistoryIsBounded(t *testing.T) {
	for name, keep := range map[string]replica.Keep{
		"revisions": {Revisions: 300},
		"bytes":     {Bytes: 300 << 10},
		"revisions, and more bytes than an int of 32 bits has": {Revisions: 300, Bytes: 1 << 40},
	} {
		t.Run(name, func(t *testing.T) {
			s := memory.New(memory.Config{Keep: keep})
			defer s.Close()
			late, err := s.Watch(t.Context(), "/", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer late.Close()
			const n = 2000
			for i := range n {
				op := sqlstore.Op{Key: fmt.Sprintf("/%d", i%7), Value: make([]byte, 1000), RevAt: -1, If: sqlstore.AnyRevision}
				if _, err := s.Commit(t.Context(), op); err != nil {
					t.Fatal(err)
				}
			}
			if kept := n - s.Compacted(); kept < 100 || kept > 600 {
				t.Errorf("%d revisions are kept", kept)
			}
			var gone *sqlstore.CompactedError
			if _, err := late.Next(t.Context()); !errors.As(err, &gone) {
				t.Errorf("next of a watcher that came too late: %v", err)
			}
			if _, err := s.List(t.Context(), "/", "", 0, s.Compacted()-1); !errors.As(err, &gone) {
				t.Errorf("list of what is gone: %v", err)
			}
			w, err := s.Watch(t.Context(), "/", s.Compacted())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			for last := s.Compacted(); last < n; {
				events, err := w.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range events {
					if e.Rev != last+1 {
						t.Fatalf("revision %d follows %d", e.Rev, last)
					}
					last = e.Rev
				}
			}
		})
	}
}

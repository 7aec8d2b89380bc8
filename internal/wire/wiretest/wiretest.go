// Package wiretest writes and reads messages of the link as short text, for scripts of the two sessions.
package wiretest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"petrel.dev/petrel/internal/wire"
)

// Text is a message in a line. Hashes are compared with right, the hash that the copy should have.
func Text(m wire.Message, right wire.Hash) string {
	hash := func(h wire.Hash) string {
		if h == right {
			return "right"
		}
		return "wrong"
	}
	switch m := m.(type) {
	case *wire.Welcome:
		return fmt.Sprintf("Welcome %s, reports %s", m.Node, hash(m.Up))
	case *wire.Refuse:
		return fmt.Sprintf("Refuse %s: %s", m.Code, m.Message)
	case *wire.Have:
		ids := make([]string, 0, len(m.Entries))
		for _, e := range m.Entries {
			ids = append(ids, fmt.Sprintf("%s/%s@%d", e.Kind, e.UID, e.Version))
		}
		slices.Sort(ids)
		return strings.Join(append([]string{"Have"}, ids...), " ")
	case *wire.Batch:
		return "Batch " + Batch(m)
	case *wire.Applied:
		return fmt.Sprintf("Applied %d, hash %s", m.Seq, hash(m.Hash))
	case *wire.Complete:
		return "Complete, hash " + hash(m.Hash)
	case *wire.Open:
		return "Open " + m.Stream
	case *wire.Bye:
		return strings.TrimSpace(fmt.Sprintf("Bye %s %s", m.Code, m.Message))
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", m), "*wire.")
}

// Batch is a batch in a line, for example "1: +Pod/a@3 -ConfigMap/b"; "!" is an object that is handed over once.
func Batch(b *wire.Batch) string {
	s := fmt.Sprintf("%d:", b.Seq)
	for _, p := range b.Puts {
		mark := "+"
		if p.Once {
			mark = "!"
		}
		s += fmt.Sprintf(" %s%s/%s@%d", mark, p.Kind, p.UID, p.Version)
	}
	for _, id := range b.Deletes {
		s += fmt.Sprintf(" -%s/%s", id.Kind, id.UID)
	}
	return s
}

// ParseBatch reads what Batch writes, in fields: "1:", "+Pod/a@3", ... Its hash is that of copy after it.
func ParseBatch(fields []string, copy *wire.Copy) (*wire.Batch, error) {
	seq, err := strconv.ParseUint(strings.TrimSuffix(fields[0], ":"), 10, 64)
	b := &wire.Batch{Seq: seq}
	h := copy.Hash()
	had := map[wire.ID]uint64{}
	for _, e := range copy.Entries() {
		had[e.ID] = e.Version
	}
	for _, f := range fields[1:] {
		e, err2 := ParseEntry(f[1:])
		if err == nil {
			err = err2
		}
		if v, ok := had[e.ID]; ok {
			h.Remove(e.ID, v)
		}
		switch f[0] {
		case '-':
			b.Deletes = append(b.Deletes, e.ID)
		case '+':
			h.Add(e.ID, e.Version)
			fallthrough
		default:
			b.Puts = append(b.Puts, wire.Put{Object: wire.Object{ID: e.ID, Version: e.Version}, Once: f[0] == '!'})
		}
	}
	b.Hash = h
	return b, err
}

// ParseEntry reads "Pod/a@3"; without a version it is 0.
func ParseEntry(s string) (e wire.Entry, err error) {
	name, version, ok := strings.Cut(s, "@")
	kind, uid, _ := strings.Cut(name, "/")
	e.ID = wire.ID{Kind: wire.Kind(kind), UID: uid}
	if ok {
		e.Version, err = strconv.ParseUint(version, 10, 64)
	}
	return e, err
}

package replica

import (
	"sort"
	"strings"

	"github.com/tidwall/btree"

	"petrel.dev/petrel/sqlstore"
)

// Index is the ordered map of current entries. The committer owns one that it changes; snapshots of it are handed to
// readers and never change. A snapshot costs nothing; a change after one copies the path to the changed leaf.
type Index struct {
	tree *btree.Map[string, *sqlstore.Entry]
}

// treeDegree makes small nodes, because every lone commit copies one path of them.
const treeDegree = 16

// NewIndex returns an empty one.
func NewIndex() *Index { return &Index{tree: btree.NewMap[string, *sqlstore.Entry](treeDegree)} }

func (x *Index) snapshot() *Index { return &Index{tree: x.tree.Copy()} }

func (x *Index) get(key string) (*sqlstore.Entry, bool) { return x.tree.Get(key) }

// Len returns the number of keys.
func (x *Index) Len() int { return x.tree.Len() }

// Put stores e and returns what it replaced.
func (x *Index) Put(e *sqlstore.Entry) *sqlstore.Entry {
	old, _ := x.tree.Set(e.Key, e)
	return old
}

// remove deletes key and returns what it held.
func (x *Index) remove(key string) *sqlstore.Entry {
	old, _ := x.tree.Delete(key)
	return old
}

// restore undoes a put or remove of key that returned old.
func (x *Index) restore(key string, old *sqlstore.Entry) {
	if old == nil {
		x.tree.Delete(key)
	} else {
		x.tree.Set(key, old)
	}
}

// scan calls f in order for entries with the prefix whose key is greater than after, until f returns false.
func (x *Index) scan(prefix, after string, f func(*sqlstore.Entry) bool) {
	from := prefix
	if after >= from && after != "" {
		from = after
	}
	x.tree.Ascend(from, func(key string, e *sqlstore.Entry) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if after != "" && key <= after {
			return true
		}
		return f(e)
	})
}

// rank returns the number of keys less than key.
func (x *Index) rank(key string) int {
	return sort.Search(x.tree.Len(), func(i int) bool {
		k, _, _ := x.tree.GetAt(i)
		return k >= key
	})
}

// remaining returns the number of keys with the prefix that are greater than after (if set).
func (x *Index) remaining(prefix, after string) int {
	from := prefix
	if after != "" && after >= prefix {
		from = after + "\x00" // the least string greater than after
	}
	end := x.tree.Len()
	if bound, ok := PrefixEnd(prefix); ok {
		end = x.rank(bound)
	}
	return max(0, end-x.rank(from))
}

// PrefixEnd returns the least string greater than every string with the prefix; ok is false when there is none.
func PrefixEnd(prefix string) (bound string, ok bool) {
	b := []byte(prefix)
	for len(b) > 0 {
		if last := len(b) - 1; b[last] == 0xff {
			b = b[:last]
		} else {
			b[last]++
			return string(b), true
		}
	}
	return "", false
}

package replica

import (
	"slices"
	"strings"

	"petrel.dev/petrel/sqlstore"
)

// defaultMaxBytes bounds what all entries may cost in memory. Each object is held once as bytes, and those that the hub's
// loops read once more decoded. A fleet of 1,000 nodes and 10,000 pods has about 40 MiB of objects; a board of 512 MB still
// lives with a full store.
const defaultMaxBytes = 256 << 20

// EntryOverhead is what an entry costs in memory beyond its key and value, in bytes.
const EntryOverhead = 128

// smallGrowth is by how many bytes an object may grow in one change that is still taken when the store is over its limit:
// statuses, marks of deletion. hardLimit bounds what such changes add up to.
const smallGrowth = 4 << 10

// hardLimit returns where small growth ends too: an eighth above the limit.
func hardLimit(limit int64) int64 { return limit + limit/8 }

// Cost returns what an entry costs in memory, in bytes.
func Cost(e *sqlstore.Entry) int64 { return int64(len(e.Key)+len(e.Value)) + EntryOverhead }

// growth is what a transaction would do to the size of the store.
type growth struct {
	bytes int64
	frees bool // it makes the store no larger, or is a step on the way to that
	small bool // no object grows by more than smallGrowth, and nothing is created but what is expendable
	// tenants are those of the changed keys, each once; mostly one.
	tenants []tenantGrowth
}

// tenantGrowth is what a transaction would do to the size of one tenant.
type tenantGrowth struct {
	name  string
	bytes int64
	bound bool // some of it is not the reserve's
}

// count adds one change to g: op makes next of old, which is nil when the key does not exist.
func (g *growth) count(op *sqlstore.Op, old, next *sqlstore.Entry, r *Room) {
	var had, has int64
	if old != nil {
		had = Cost(old)
	}
	if !op.Delete {
		has = Cost(next)
	}
	g.bytes += has - had
	g.countTenant(r.tenantOf(op.Key), has-had, !op.Reserve)
	if op.Frees && old != nil && has-had <= smallGrowth {
		return
	}
	if has > had {
		g.frees = false
	}
	if has-had > smallGrowth || old == nil && !r.isExpendable(op.Key) {
		g.small = false
	}
}

func (g *growth) countTenant(name string, bytes int64, bound bool) {
	if name == "" {
		return
	}
	for i := range g.tenants {
		if t := &g.tenants[i]; t.name == name {
			t.bytes += bytes
			t.bound = t.bound || bound
			return
		}
	}
	g.tenants = append(g.tenants, tenantGrowth{name, bytes, bound})
}

// Room is what a batch may take. It belongs to the one who commits.
type Room struct {
	// Frugal has deletions go without their last value and refuses all growth: the engine is short of room on its disk.
	Frugal bool

	living     int64    // what all entries cost, in bytes
	limit      int64    // what they may cost; never changes
	expendable []string // prefixes of keys that may be lost, and that the caller bounds; never changes
	refused    bool     // the limit has refused growth, and the store is not yet well below it
	path       string   // names the store in errors

	tenant func(key string) string // whose a key is; nil, or "" for a key: nobody's; never changes
	by     map[string]int64        // what the entries of each tenant cost, in bytes; no zeros
}

func (r *Room) tenantOf(key string) string {
	if r.tenant == nil {
		return ""
	}
	return r.tenant(key)
}

// add counts bytes more, or fewer, for a tenant.
func (r *Room) add(tenant string, bytes int64) {
	if tenant == "" {
		return
	}
	if r.by[tenant] += bytes; r.by[tenant] == 0 {
		delete(r.by, tenant)
	}
}

// share returns what a tenant may have: as much as is left for all others. One that takes what it can gets half of the limit,
// two get a third each, and one that has next to nothing is refused only when the store is full.
func (r *Room) share(tenant string) int64 {
	return (r.limit - (r.living - r.by[tenant])) / 2
}

// smallShare bounds small growth: an eighth of the limit above the most that a share can be, since a tenant that had that much
// when it was alone must be able to go on when others come.
func (r *Room) smallShare() int64 { return r.limit/2 + r.limit/8 }

// overShare returns the error for a tenant whose share a transaction would exceed, or nil.
func (r *Room) overShare(g growth) error {
	for _, t := range g.tenants {
		if !t.bound || t.bytes <= 0 {
			continue
		}
		share := r.share(t.name)
		if g.small {
			share = max(share, r.smallShare())
		}
		if have := r.by[t.name]; have+t.bytes > share {
			return &sqlstore.FullError{Bytes: have, Limit: max(share, 0), Path: r.path, Tenant: t.name}
		}
	}
	return nil
}

// Living returns what all entries cost, in bytes.
func (r *Room) Living() int64 { return r.living }

// Limit returns what all entries may cost, in bytes.
func (r *Room) Limit() int64 { return r.limit }

// Full returns why the store takes nothing that makes it grow, or nil. After a refusal it stays full until it is 5 % below
// its limit.
func (r *Room) Full() *sqlstore.FullError {
	if r.refused && r.relieved() {
		r.refused = false
	}
	switch {
	case r.Frugal:
		return r.NoSpace()
	case r.refused:
		return &sqlstore.FullError{Bytes: r.living, Limit: r.limit, Path: r.path}
	}
	return nil
}

// NoSpace returns the error that says that the disk is full.
func (r *Room) NoSpace() *sqlstore.FullError {
	return &sqlstore.FullError{Bytes: r.living, Path: r.path}
}

func (r *Room) isExpendable(key string) bool {
	return slices.ContainsFunc(r.expendable, func(p string) bool { return strings.HasPrefix(key, p) })
}

// refuses returns the *sqlstore.FullError with which a transaction is refused, nil when it may go on.
func (r *Room) refuses(g growth) error {
	if g.frees || g.bytes <= 0 {
		return nil
	}
	if r.Frugal {
		return r.NoSpace()
	}
	limit := r.limit
	if g.small {
		limit = hardLimit(limit)
	}
	if r.living+g.bytes <= limit {
		return r.overShare(g)
	}
	r.refused = true
	return &sqlstore.FullError{Bytes: r.living, Limit: r.limit, Path: r.path}
}

// relieved reports whether the store is well below its limit.
func (r *Room) relieved() bool { return r.living < r.limit-r.limit/20 }

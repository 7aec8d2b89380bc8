package celbound

import (
	"sync"
	"sync/atomic"
)

// An expression that has been compiled takes some 50 KB: each program has a table of all functions. Thousands of policies would so take all
// memory there is. What is kept is bounded; what goes beyond is compiled for each write that needs it.
const (
	// maxKept bounds what the compiled expressions of one Budget take, in bytes.
	maxKept = 32 << 20
	// perExpression and perSource are what one expression takes, and each byte of its text; perProgram what holds some together.
	perExpression = 56 << 10
	perSource     = 64
	perProgram    = 24 << 10
)

// Weight returns about how many bytes expressions take that are compiled and kept together.
func Weight(expressions ...string) int64 {
	n := int64(perProgram)
	for _, e := range expressions {
		n += perExpression + perSource*int64(len(e))
	}
	return n
}

// Budget is what may be kept of compiled expressions. It is safe for concurrent use.
type Budget struct{ taken atomic.Int64 }

func (b *Budget) take(n int64) bool {
	if b.taken.Add(n) <= maxKept {
		return true
	}
	b.taken.Add(-n)
	return false
}

// Kept is something compiled that is kept as long as its owner is there, if there is room when it is first needed. The zero value has not
// been compiled. It is safe for concurrent use, and is not copied.
type Kept[T any] struct {
	mu     sync.Mutex
	weight int64 // of value; 0: none is kept; guarded by mu, as is value
	value  T
}

// Get returns the value, compiled now if it is not kept. It takes weight of b when it begins to keep it.
func (k *Kept[T]) Get(b *Budget, weight int64, compile func() T) T {
	k.mu.Lock()
	if k.weight == 0 && !b.take(weight) {
		k.mu.Unlock()
		return compile() // each caller its own: they do not wait for one another
	}
	defer k.mu.Unlock()
	if k.weight == 0 {
		k.value, k.weight = compile(), weight
	}
	return k.value
}

// Carry counts what is kept in b, which takes the place of the budget before.
func (k *Kept[T]) Carry(b *Budget) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b.taken.Add(k.weight)
}

// Package contain keeps a panic where it happened: at one object, node, pod, connection or request, never the process.
//
// A loop calls Do around the work on one key. A panic in it becomes a *Panic error, which the loop treats as any other
// failure of that key: it backs off and the others go on. The panic is counted per site, and its stack is logged once per
// site and message; what recurs is counted only.
//
// What Do cannot contain: fatal runtime errors (out of memory, concurrent map writes, stack exhaustion) and panics on
// goroutines that the function starts itself; each such goroutine needs a Do of its own.
package contain

import (
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Panic is the error that Do returns for a panic.
type Panic struct {
	Site  string // the part of the program, such as "control/deployment"
	Key   string // what was worked on, such as "default/web"
	Value any    // what was passed to panic
}

func (p *Panic) Error() string {
	return fmt.Sprintf("%s: panic while working on %s: %v", p.Site, p.Key, p.Value)
}

// Unwrap returns the panic's value where it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

var (
	mu     sync.Mutex
	counts = map[string]uint64{}   // by site; sites are constants of the program, so that it is bounded
	logged = map[string]struct{}{} // site and message of each stack that was logged, at most maxLogged

	inject atomic.Pointer[func(site, key string)]
)

// maxLogged bounds the stacks that one process logs.
const maxLogged = 64

// maxValue bounds what is logged of a panic's value, which may be something that a client sent. Bytes.
const maxValue = 512

// Do calls fn and returns its error, or a *Panic when fn panicked. site must be a constant; key names what is worked on.
// log may be nil.
func Do(log *slog.Logger, site, key string, fn func() error) (err error) {
	return Lazy(log, site, func() string { return key }, fn)
}

// Lazy calls fn as Do does, for work that is quicker than the making of its key's text.
func Lazy(log *slog.Logger, site string, key func() string, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = caught(log, site, key(), v, debug.Stack())
		}
	}()
	if f := inject.Load(); f != nil {
		(*f)(site, key())
	}
	return fn()
}

// Go calls fn as Do does, for functions that return nothing: goroutines that end with their work.
func Go(log *slog.Logger, site, key string, fn func()) {
	_ = Do(log, site, key, func() error { fn(); return nil })
}

func caught(log *slog.Logger, site, key string, v any, stack []byte) error {
	p := &Panic{Site: site, Key: key, Value: v}
	message := fmt.Sprint(v)
	if len(message) > maxValue {
		message = message[:maxValue] + "..."
	}
	id := site + "\x00" + message
	mu.Lock()
	counts[site]++
	_, known := logged[id]
	first := !known && len(logged) < maxLogged
	if first {
		logged[id] = struct{}{}
	}
	mu.Unlock()
	if first && log != nil {
		log.Error("panic contained: this is a fault of Petrel, please report it", "site", site, "key", key, "panic", message, "stack", string(stack))
	}
	return p
}

// Counts returns how many panics were contained since the process started, by site.
func Counts() map[string]uint64 {
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(counts)
}

// Inject makes every Do call f before its function until the returned function is called: f panics where a test wants a
// fault. It is for tests only.
func Inject(f func(site, key string)) (remove func()) {
	inject.Store(&f)
	return func() { inject.Store(nil) }
}

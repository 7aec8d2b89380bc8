// Package fairness decides which requests are worked on now and which wait, by the stored FlowSchemas and PriorityLevelConfigurations,
// as Kubernetes' priority and fairness does:
//
//	request ─► first FlowSchema that matches ─► its level ─┬─ exempt: at once
//	                                                       └─ limited: seats ─ or a place in the queue of its flow ─ or 429
//
// A flow is the requests of one FlowSchema by one user (or in one namespace, as the FlowSchema says). Each flow that waits has a queue of
// its own, and they are served in turn. Where upstream deals the flows out to a fixed number of queues and hopes that two do not meet
// in one (shuffle sharding), nothing is left to chance here; the numbers of that configuration bound how much may wait.
//
// There is no goroutine, and no timer unless a request waits. What requests are classified by is derived from the typed cache, anew when
// one of the two kinds has changed.
package fairness

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads what is stored; *objects.Cache is one.
type Objects interface {
	List(gvk kube.GVK, namespace string) []kube.Object
	// Version returns a number that is another one after each change that List shows.
	Version(gvk kube.GVK) uint64
}

// Config is what a Gate needs. All of it is required.
type Config struct {
	Objects Objects
	// Seats is how many seats all levels have together. A request takes one, an expensive list up to ten.
	Seats int
	// Count returns how many stored objects have keys that begin with prefix.
	Count func(ctx context.Context, prefix string) int
}

// Gate admits requests. It is safe for concurrent use.
type Gate struct {
	cfg     Config                   // does not change after New
	current atomic.Pointer[schedule] // nil until the first request

	mu      sync.Mutex
	seats   seats               // guarded by mu
	waiting int                 // requests, of all levels; guarded by mu
	levels  map[string]*level   // by name; a level that is configured anew stays the same one; guarded by mu
	order   []*level            // levels that are limited; guarded by mu
	tallies map[tallyKey]*tally // of FlowSchemas that exist, and of levels that are still in use; guarded by mu
}

// New returns a Gate.
func New(cfg Config) *Gate {
	return &Gate{cfg: cfg, seats: seats{total: cfg.Seats}, levels: map[string]*level{}, tallies: map[tallyKey]*tally{}}
}

// schedule is what requests are classified by. It does not change.
type schedule struct {
	versions [2]uint64
	schemas  []*schema // in the order in which they are asked
	catchAll *schema   // for what none matches; never nil
}

// schema is a FlowSchema whose level exists. It does not change.
type schema struct {
	*flowcontrolv1.FlowSchema
	level    *level
	levelUID string
	exempt   bool
	alone    bool // all its requests are one flow with all others of the level
	tally    *tally
}

// Class is how a request is treated.
type Class struct {
	schema *schema // never nil
	flow   flowKey
}

// Exempt reports whether the request neither waits nor counts.
func (c Class) Exempt() bool { return c.schema.exempt }

// UIDs returns those of the FlowSchema and the PriorityLevelConfiguration, for the answer's headers. They are empty before the objects that
// every cluster has have been made.
func (c Class) UIDs() (schema, level string) { return string(c.schema.UID), c.schema.levelUID }

// Classify returns the class of a request.
func (g *Gate) Classify(u *auth.User, a *auth.Attributes) Class {
	now := g.schedule()
	s := now.catchAll
	for _, candidate := range now.schemas {
		if matches(&candidate.Spec, u, a) {
			s = candidate
			break
		}
	}
	if s.exempt {
		s.tally.dispatched.Add(1)
		return Class{schema: s}
	}
	return Class{schema: s, flow: s.flowOf(u, a)}
}

// flowOf returns which requests share a queue.
func (s *schema) flowOf(u *auth.User, a *auth.Attributes) flowKey {
	m := s.Spec.DistinguisherMethod
	switch {
	case s.alone:
		return flowKey{}
	case m == nil:
		return flowKey{schema: s.Name}
	case m.Type == flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		return flowKey{schema: s.Name, by: a.Namespace, many: true}
	}
	return flowKey{schema: s.Name, by: u.Name, many: true}
}

// Seat is what a request that is worked on has. It belongs to one goroutine. Its zero value is none.
type Seat struct {
	gate  *Gate
	level *level // nil: none, or given back
	flow  *flow
	width int
	tally *tally
}

// Leave gives the seat back. It may be called more than once.
func (s *Seat) Leave() {
	if s.level != nil {
		s.gate.leave(s)
		s.level = nil
	}
}

// Enter waits until a request of a class that is not exempt may be worked on, at most until the time is over, and returns its seat. width
// is how many seats it would take, one at least. The error is the context's, or a 429.
func (g *Gate) Enter(ctx context.Context, c Class, width int, until time.Time) (Seat, error) {
	l := c.schema.level
	w := &waiter{width: width, tally: c.schema.tally}
	g.mu.Lock()
	l = g.present(l)
	f := l.flow(c.flow)
	if l.waiting == 0 && g.seats.fits(l, f, w) {
		g.seat(l, f, w)
		g.mu.Unlock()
		return w.seat(g, l, f), nil
	}
	if err := g.queue(l, f, w); err != nil {
		g.mu.Unlock()
		return Seat{}, err
	}
	g.fill(l) // those that wait already may be ones that have enough
	g.mu.Unlock()

	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case <-w.ready:
		return w.seat(g, l, f), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.seated { // just now
		return w.seat(g, l, f), nil
	}
	return Seat{}, g.withdraw(ctx, l, f, w)
}

// schedule returns what the cache shows now.
func (g *Gate) schedule() *schedule {
	v := [2]uint64{g.cfg.Objects.Version(kube.FlowSchema), g.cfg.Objects.Version(kube.PriorityLevelConfiguration)}
	if c := g.current.Load(); c != nil && c.versions == v {
		return c
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.current.Load(); c != nil && c.versions == v {
		return c
	}
	c := &schedule{versions: v}
	configs := named[*flowcontrolv1.PriorityLevelConfiguration](g.cfg.Objects.List(kube.PriorityLevelConfiguration, ""), bootstrap.MandatoryPriorityLevelConfigurations)
	g.configure(configs)
	for name, f := range named[*flowcontrolv1.FlowSchema](g.cfg.Objects.List(kube.FlowSchema, ""), bootstrap.MandatoryFlowSchemas) {
		config := configs[f.Spec.PriorityLevelConfiguration.Name]
		if config == nil {
			continue // it is dangling
		}
		s := g.schema(f, config)
		c.schemas = append(c.schemas, s)
		if name == flowcontrolv1.FlowSchemaNameCatchAll {
			c.catchAll = s
		}
	}
	if c.catchAll == nil { // validation does not let it lead elsewhere; a store that was edited by hand might
		c.catchAll = g.schema(bootstrap.MandatoryFlowSchemaCatchAll, configs[flowcontrolv1.PriorityLevelConfigurationNameCatchAll])
	}
	slices.SortFunc(c.schemas, func(a, b *schema) int {
		if d := int(a.Spec.MatchingPrecedence) - int(b.Spec.MatchingPrecedence); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	g.forget(c)
	g.current.Store(c)
	return c
}

// schema returns a FlowSchema of a level that is configured. g.mu is held.
func (g *Gate) schema(f *flowcontrolv1.FlowSchema, config *flowcontrolv1.PriorityLevelConfiguration) *schema {
	l := g.levels[config.Name]
	return &schema{FlowSchema: f, level: l, levelUID: string(config.UID), exempt: l.exempt, alone: l.alone, tally: g.tally(l.name, f.Name)}
}

// named returns objects by name, with those that always exist, also while they are not stored.
func named[T kube.Object](stored []kube.Object, always []T) map[string]T {
	out := make(map[string]T, len(stored)+len(always))
	for _, o := range always {
		out[o.GetName()] = o
	}
	for _, o := range stored {
		if t, ok := o.(T); ok {
			out[t.GetName()] = t
		}
	}
	return out
}

package crd

import (
	"context"
	"fmt"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"petrel.dev/petrel/hub/crd/structural"
)

const (
	// idleSchema is how long a compiled schema is kept without use.
	idleSchema = 90 * time.Second
	// maxSchemaBytes bounds the compiled schemas by the JSON that they were made from; compiled they have some twenty times as
	// much. The one in use stays, however large.
	maxSchemaBytes = 1 << 20
)

// schemas holds the compiled schemas that are in use. It has a timer while there are any, and nothing otherwise.
type schemas struct {
	read func(ctx context.Context, name string) (*apiextensionsv1.CustomResourceDefinition, error)
	rest func() // called when nothing is held any more; never nil

	mu    sync.Mutex
	held  map[schemaKey]*held // guarded by mu, as all that follows
	bytes int                 // of held
	sweep *time.Timer         // nil: none is running
}

type schemaKey struct {
	of      *definition
	version string
}

// held is one compiled schema. Its first user compiles it, the others wait.
type held struct {
	once   sync.Once
	schema *structural.Schema
	err    error
	// bytes of JSON, counted in schemas.bytes once it is compiled; guarded by schemas.mu, as used is.
	bytes int
	used  time.Time
}

func newSchemas(cfg Config) *schemas {
	s := &schemas{read: cfg.Read.definition, rest: cfg.Rest, held: map[schemaKey]*held{}}
	if s.rest == nil {
		s.rest = func() {}
	}
	return s
}

// worked makes rest be called some time after heavy work on definitions, as after the use of schemas.
func (s *schemas) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arm()
}

// arm starts the timer of clean, unless it runs. s.mu is held.
func (s *schemas) arm() {
	if s.sweep == nil {
		s.sweep = time.AfterFunc(idleSchema, s.clean)
	}
}

// get returns the schema of a version, compiled when it is not.
func (s *schemas) get(ctx context.Context, d *definition, version string) (*structural.Schema, error) {
	key := schemaKey{d, version}
	s.mu.Lock()
	h := s.held[key]
	if h == nil {
		h = &held{}
		s.held[key] = h
		s.arm()
	}
	h.used = time.Now()
	s.mu.Unlock()
	h.once.Do(func() {
		// For all who wait, so it does not end with the request that happens to be first; the store has bounds of its own.
		bytes := 0
		h.schema, bytes, h.err = s.compile(context.WithoutCancel(ctx), d, version)
		s.compiled(key, h, bytes)
	})
	return h.schema, h.err
}

// compile reads the definition and compiles one of its versions. bytes is the size of that version's JSON.
func (s *schemas) compile(ctx context.Context, d *definition, version string) (schema *structural.Schema, bytes int, err error) {
	crd, err := s.read(ctx, d.name)
	if err != nil {
		return nil, 0, err
	}
	if schema, err = structural.Compile(crd, version); err != nil {
		return nil, 0, fmt.Errorf("the server could not properly serve the CR schema: %w", err)
	}
	for i := range crd.Spec.Versions {
		if v := &crd.Spec.Versions[i]; v.Name == version && v.Schema != nil {
			bytes = v.Schema.Size()
		}
	}
	return schema, bytes, nil
}

// compiled counts a schema, and makes room for it. One that cannot be compiled is tried again by the next user.
func (s *schemas) compiled(key schemaKey, h *held, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[key] != h {
		return // forgotten meanwhile
	}
	if h.err != nil {
		delete(s.held, key)
		return
	}
	h.bytes = bytes
	s.bytes += bytes
	for s.bytes > maxSchemaBytes && len(s.held) > 1 {
		oldest := key
		for k, o := range s.held {
			if k != key && (oldest == key || o.used.Before(s.held[oldest].used)) {
				oldest = k
			}
		}
		s.drop(oldest)
	}
}

// drop forgets one schema. s.mu is held.
func (s *schemas) drop(key schemaKey) {
	s.bytes -= s.held[key].bytes
	delete(s.held, key)
}

// clean forgets what has not been used for long. When that is all, the memory goes back to the system.
func (s *schemas) clean() {
	if s.forgetIdle() {
		s.rest()
	}
}

// forgetIdle reports whether nothing is held any more; otherwise clean runs again later.
func (s *schemas) forgetIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, h := range s.held {
		if time.Since(h.used) >= idleSchema {
			s.drop(key)
		}
	}
	if len(s.held) == 0 {
		s.sweep = nil
		return true
	}
	s.sweep.Reset(idleSchema)
	return false
}

// forget drops the schemas of a definition.
func (s *schemas) forget(d *definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.held {
		if key.of == d {
			s.drop(key)
		}
	}
}

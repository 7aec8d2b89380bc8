// Package swagger is the one OpenAPI document of version 2: that of this server's kinds, and in it those of the API servers behind it.
//
//	GET /openapi/v2 ─► APIServices ─► servers whose document is a minute old: asked, for 2 s at most
//	                                    └─► part: paths below /apis/GROUP/VERSION/, and what they refer to
//	                   own document ──────────┴─► merged (definitions that differ get another name) ─► gzip'd JSON, kept
//
// Nothing is asked, built or kept before a client reads the document. What a server says is its own affair: one that is slow, large,
// senseless or away is left out, or described as it was when it last answered, and the document of the others is as without it. A server
// describes its own group only: it cannot say what a Pod is.
package swagger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/aggregate"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/contain"
)

const (
	// freshFor is how long a server's document counts as its latest; upstream asks as often.
	freshFor = time.Minute
	// retryAfter is the pause after a question that failed.
	retryAfter = 10 * time.Second
	// patience is how long a reader waits for servers. One that takes longer is waited for by nobody until it has been quick again.
	patience = 2 * time.Second
	// askTime bounds one question.
	askTime = 10 * time.Second
	// maxAsked is how many servers are asked at one time.
	maxAsked = 4
)

// Own is the documents of this server's kinds; *openapi.Documents is one.
type Own interface {
	GroupVersions() (map[string]string, error)
	V3(gv schema.GroupVersion, protobuf bool) (gzip []byte, etag string, ok bool, err error)
	V2(protobuf bool) (gzip []byte, etag string, err error)
}

// Servers are the API servers behind this one; *aggregate.Aggregator is one.
type Servers interface {
	// Services returns the APIServices that name one, the most important first.
	Services() []*apiregistrationv1.APIService
	// Document returns a server's document and its ETag; no document where have is its ETag still.
	Document(ctx context.Context, svc *apiregistrationv1.APIService, have string) (doc []byte, etag string, err error)
}

// Documents are those of this server; the one of version 2 describes aggregated servers too. It is safe for concurrent use.
type Documents struct {
	Own
	servers Servers
	log     *slog.Logger
	slots   chan struct{} // one for each server that is being asked

	mu    sync.Mutex
	known map[string]*server // by name of the APIService; guarded by mu, as are the fields of each

	merging sync.Mutex // held while the document is made: others wait for it
	merged  merged     // guarded by merging
}

// server is what is known of the document of one APIService.
type server struct {
	of     string // the UID and the Service of the APIService: that of another server is not kept
	part   part   // as of the last good answer; zero: none yet
	etag   string // the server's, of what part was made of
	asked  time.Time
	asking chan struct{} // closed when the question that is under way has ended; nil: none is
	late   bool          // took longer than patience the last time
	failed string        // why the last question failed, "": it did not
}

// merged is the document as it was last made.
type merged struct {
	of     string // the tags of what it was made of
	packed []byte
	tag    string
	binary []byte // made when a client asks for it
}

// New returns the documents of own and servers. log takes what is wrong with servers' documents.
func New(own Own, servers Servers, log *slog.Logger) *Documents {
	return &Documents{Own: own, servers: servers, log: log, slots: make(chan struct{}, maxAsked), known: map[string]*server{}}
}

// V2 returns the document of version 2, gzip'd, with its hash.
func (d *Documents) V2(protobuf bool) (doc []byte, etag string, err error) {
	services := d.servers.Services()
	d.refresh(services)
	parts := d.parts(services)
	if len(parts) == 0 {
		d.merging.Lock()
		d.merged = merged{}
		d.merging.Unlock()
		return d.Own.V2(protobuf)
	}
	own, tag, err := d.Own.V2(false)
	if err != nil {
		return nil, "", err
	}
	for _, p := range parts {
		tag += " " + p.tag
	}
	d.merging.Lock()
	defer d.merging.Unlock()
	if d.merged.of != tag {
		packed, hash, err := merge(own, parts, d.log)
		if err != nil {
			return nil, "", fmt.Errorf("openapi v2 of aggregated servers: %w", err)
		}
		d.merged = merged{of: tag, packed: packed, tag: hash}
		debug.FreeOSMemory() // as after the building of own documents
	}
	if !protobuf {
		return d.merged.packed, d.merged.tag, nil
	}
	if d.merged.binary == nil {
		if d.merged.binary, err = openapi.ProtobufV2(d.merged.packed); err != nil {
			return nil, "", err
		}
		debug.FreeOSMemory()
	}
	return d.merged.binary, d.merged.tag, nil
}

// parts returns what is known of the servers, in their order.
func (d *Documents) parts(services []*apiregistrationv1.APIService) (parts []part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, svc := range services {
		if s := d.known[svc.Name]; s != nil && s.part.packed != nil {
			parts = append(parts, s.part)
		}
	}
	return parts
}

// refresh asks the servers whose document is not fresh, and waits for those that are quick.
func (d *Documents) refresh(services []*apiregistrationv1.APIService) {
	waits := d.ask(services)
	if len(waits) == 0 {
		return
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for _, done := range waits {
		select {
		case <-done:
		case <-timeout.C:
			d.giveUp()
			return
		}
	}
}

// ask begins what has to be asked, and returns what a reader waits for. What is known of servers that are gone is dropped.
func (d *Documents) ask(services []*apiregistrationv1.APIService) (waits []<-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	known := make(map[string]*server, len(services))
	for _, svc := range services {
		s := d.known[svc.Name]
		if of := identity(svc); s == nil || s.of != of {
			s = &server{of: of}
		}
		known[svc.Name] = s
		pause := freshFor
		if s.failed != "" {
			pause = retryAfter
		}
		if s.asking == nil && now.Sub(s.asked) >= pause && aggregate.Available(svc) {
			s.asked, s.asking = now, make(chan struct{})
			go d.question(svc, s, s.etag, s.asking)
		}
		if s.asking != nil && !s.late {
			waits = append(waits, s.asking)
		}
	}
	d.known = known
	return waits
}

// identity names the server behind an APIService.
func identity(svc *apiregistrationv1.APIService) string {
	ref := svc.Spec.Service
	return fmt.Sprintf("%s %s/%s:%d", svc.UID, ref.Namespace, ref.Name, aggregate.PortOf(svc))
}

// giveUp has nobody wait any more for the servers that are being asked.
func (d *Documents) giveUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.known {
		s.late = s.late || s.asking != nil
	}
}

// question asks one server, and keeps its part of the document. It closes done.
func (d *Documents) question(svc *apiregistrationv1.APIService, s *server, have string, done chan struct{}) {
	began := time.Now()
	var answer part
	var etag string
	err := contain.Do(d.log, "aggregate/swagger", svc.Name, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTime) // not that of a request, which may end before
		defer cancel()
		select {
		case d.slots <- struct{}{}:
			defer func() { <-d.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
		var doc []byte
		if doc, etag, err = d.servers.Document(ctx, svc, have); err != nil || doc == nil {
			return err
		}
		answer, err = partOf(doc, svc)
		return err
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(done)
	s.asking, s.late = nil, time.Since(began) > patience
	switch {
	case err == nil:
		if s.failed = ""; answer.packed != nil {
			s.part, s.etag = answer, etag
		}
	case errors.Is(err, aggregate.ErrNoDocument):
		s.failed, s.part, s.etag = "", part{}, ""
	default:
		if reason := strings.ToValidUTF8(err.Error(), "?"); reason != s.failed {
			d.log.Warn("OpenAPI document of an aggregated server cannot be used, and is left out or as before", "apiService", svc.Name, "error", err)
			s.failed = reason
		}
	}
}

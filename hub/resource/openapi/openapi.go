// Package openapi describes the served kinds in OpenAPI, version 2 and 3: what kubectl explain shows, what clients
// validate by, and the merge keys of strategic merge patches.
//
// Upstream's generated definitions cover every kind that Kubernetes has and come to tens of megabytes. So nothing is built
// until a client asks; then the documents of that version of OpenAPI are built in one go, and only their compressed JSON is kept, a few
// hundred kilobytes. When the kinds of a group-version change, its document is built again at the next request.
package openapi

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// Documents holds the documents of the served kinds. It is safe for concurrent use.
type Documents struct {
	kinds *resource.Kinds

	mu    sync.Mutex
	of    uint64                           // the generation of kinds that v3 describes, 0: none; guarded by mu, as all that follows
	v3    map[schema.GroupVersion]document // built anew for the group-versions that have changed
	of2   uint64                           // the generation that v2 describes: few clients still ask for it
	v2    document
	proto map[string][]byte // by etag; made when a client requests it, which few do
}

// document is one document of a group-version, or of all.
type document struct {
	kinds  []*resource.Kind // that it describes; nil in version 2
	packed []byte           // gzip'd JSON; nil: not built
	tag    string           // hash of the JSON
}

// New returns the documents of kinds. Nothing is built yet.
func New(kinds *resource.Kinds) *Documents {
	return &Documents{kinds: kinds, proto: map[string][]byte{}}
}

// GroupVersions lists the documents of version 3: path below /openapi/v3 and content hash.
func (d *Documents) GroupVersions() (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.build3(); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(d.v3))
	for gv, doc := range d.v3 {
		out[root(gv)[1:]] = doc.tag
	}
	return out, nil
}

// V3 returns the document of a group-version, gzip'd, with its hash; ok is false when it has no kinds.
func (d *Documents) V3(gv schema.GroupVersion, protobuf bool) (doc []byte, etag string, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.build3(); err != nil {
		return nil, "", false, err
	}
	is, ok := d.v3[gv]
	if doc = is.packed; ok && protobuf {
		doc, err = d.protobuf(is.tag, doc, parseV3)
	}
	return doc, is.tag, ok, err
}

// V2 returns the one document of version 2, gzip'd, with its hash.
func (d *Documents) V2(protobuf bool) (doc []byte, etag string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.build2(); err != nil {
		return nil, "", err
	}
	if doc = d.v2.packed; protobuf {
		doc, err = d.protobuf(d.v2.tag, doc, parseV2)
	}
	return doc, d.v2.tag, err
}

// build3 makes the documents of version 3 that are missing or of other kinds. d.mu is held.
func (d *Documents) build3() error {
	generation := d.kinds.Generation()
	if d.of == generation {
		return nil
	}
	b := newBuilder(d.kinds.All())
	v3, built := make(map[schema.GroupVersion]document, len(b.kinds)), 0
	for gv, kinds := range b.kinds {
		if last, ok := d.v3[gv]; ok && slices.Equal(last.kinds, kinds) {
			v3[gv] = last
			continue
		}
		doc, err := b.v3(gv)
		if err != nil {
			return fmt.Errorf("openapi v3 of %s: %w", gv, err)
		}
		packed, tag, err := Pack(doc)
		if err != nil {
			return fmt.Errorf("openapi v3 of %s: %w", gv, err)
		}
		v3[gv] = document{kinds, packed, tag}
		built++
	}
	d.of, d.v3 = generation, v3
	d.built(built)
	return nil
}

// build2 makes the document of version 2 when it is missing or of other kinds. d.mu is held.
func (d *Documents) build2() error {
	generation := d.kinds.Generation()
	if d.of2 == generation {
		return nil
	}
	doc, err := newBuilder(d.kinds.All()).v2()
	if err != nil {
		return fmt.Errorf("openapi v2: %w", err)
	}
	packed, tag, err := Pack(doc)
	if err != nil {
		return fmt.Errorf("openapi v2: %w", err)
	}
	d.of2, d.v2 = generation, document{packed: packed, tag: tag}
	d.built(1)
	return nil
}

// built ends the building of n documents. d.mu is held.
func (d *Documents) built(n int) {
	if n == 0 {
		return
	}
	clear(d.proto)
	// What was allocated for building is garbage now, and more than the rest of the hub needs: return it to the system.
	debug.FreeOSMemory()
}

func (d *Documents) protobuf(tag string, packed []byte, parse parser) ([]byte, error) {
	if p := d.proto[tag]; p != nil {
		return p, nil
	}
	p, err := binary(packed, parse)
	if err != nil {
		return nil, err
	}
	d.proto[tag] = p
	debug.FreeOSMemory()
	return p, nil
}

// root returns the path below which a group-version is served.
func root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// Package openapi describes the served kinds in OpenAPI, version 2 and 3: what kubectl explain shows, what clients
// validate by, and the merge keys of strategic merge patches.
//
// Upstream's generated definitions cover every kind that Kubernetes has. So nothing is built until a client asks; then the document is
// built that it asks for, and only its compressed JSON is kept, a few hundred kilobytes for all. When the kinds of a group-version change, its
// document is built again at the next request.
//
//	GET /openapi/v3             ─► hashes: of built-in kinds from tags.txt, of custom ones by building
//	GET /openapi/v3/apis/apps/v1 ─► definitions of its kinds and what they refer to ─► JSON, gzip'd
package openapi

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// idle is how long the definitions' text is kept for the next document: who asks for one often asks for more.
const idle = 2 * time.Second

// Documents holds the documents of the served kinds. It is safe for concurrent use.
type Documents struct {
	kinds *resource.Kinds

	mu    sync.Mutex
	of    uint64                           // the generation of kinds that v3 describes, 0: none; guarded by mu, as all that follows
	v3    map[schema.GroupVersion]document // those of group-versions that have changed have to be built anew
	of2   uint64                           // the generation that v2 describes: few clients still ask for it
	v2    document
	proto map[string][]byte // by etag; made when a client requests it, which few do
	defs  definitions       // 2 MB, for the next document; nil: unpacked when it is built
	rest  *time.Timer       // calls release; nil until something was built
}

// document is one document of a group-version, or of all.
type document struct {
	kinds  []*resource.Kind // that it describes; nil in version 2
	packed []byte           // gzip'd JSON; nil: not built
	tag    string           // hash of the JSON; known before it is built where tags.txt has it
}

// New returns the documents of kinds. Nothing is built yet.
func New(kinds *resource.Kinds) *Documents {
	return &Documents{kinds: kinds, proto: map[string][]byte{}}
}

// GroupVersions lists the documents of version 3: path below /openapi/v3 and content hash.
func (d *Documents) GroupVersions() (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.follow()
	out := make(map[string]string, len(d.v3))
	for gv, doc := range d.v3 {
		if doc.tag == "" {
			var err error
			if doc, err = d.build3(gv); err != nil {
				return nil, err
			}
		}
		out[root(gv)[1:]] = doc.tag
	}
	return out, nil
}

// V3 returns the document of a group-version, gzip'd, with its hash; ok is false when it has no kinds.
func (d *Documents) V3(gv schema.GroupVersion, protobuf bool) (packed []byte, etag string, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.follow()
	doc, ok := d.v3[gv]
	if !ok {
		return nil, "", false, nil
	}
	if doc.packed == nil {
		if doc, err = d.build3(gv); err != nil {
			return nil, "", false, err
		}
	}
	if packed = doc.packed; protobuf {
		packed, err = d.protobuf(doc.tag, packed, parseV3)
	}
	return packed, doc.tag, true, err
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

// follow drops the documents of version 3 that describe other kinds than those of now. d.mu is held.
func (d *Documents) follow() {
	generation := d.kinds.Generation()
	if d.of == generation {
		return
	}
	kinds := byGroupVersion(d.kinds.All())
	v3 := make(map[schema.GroupVersion]document, len(kinds))
	for gv, kinds := range kinds {
		if last, ok := d.v3[gv]; ok && slices.Equal(last.kinds, kinds) {
			v3[gv] = last
			continue
		}
		v3[gv] = document{kinds: kinds, tag: tagOf(gv, kinds)}
	}
	d.of, d.v3 = generation, v3
	clear(d.proto)
}

// build3 makes the document of a group-version. d.mu is held.
func (d *Documents) build3(gv schema.GroupVersion) (document, error) {
	built, err := d.build(func(b *documentBuilder) (any, error) { return b.v3(gv) })
	if err != nil {
		return document{}, fmt.Errorf("openapi v3 of %s: %w", gv, err)
	}
	built.kinds = d.v3[gv].kinds
	d.v3[gv] = built
	return built, nil
}

// build2 makes the document of version 2 when it is missing or of other kinds. d.mu is held.
func (d *Documents) build2() error {
	generation := d.kinds.Generation()
	if d.of2 == generation {
		return nil
	}
	built, err := d.build(func(b *documentBuilder) (any, error) { return b.v2() })
	if err != nil {
		return fmt.Errorf("openapi v2: %w", err)
	}
	delete(d.proto, d.v2.tag)
	d.of2, d.v2 = generation, built
	return nil
}

// build makes one document. d.mu is held.
func (d *Documents) build(make func(*documentBuilder) (any, error)) (built document, err error) {
	d.restLater()
	if d.defs == nil {
		if d.defs, err = unpackDefinitions(); err != nil {
			return document{}, fmt.Errorf("definitions in this binary: %w", err)
		}
	}
	doc, err := make(newBuilder(d.kinds.All(), d.defs))
	if err != nil {
		return document{}, err
	}
	built.packed, built.tag, err = Pack(doc)
	return built, err
}

func (d *Documents) protobuf(tag string, packed []byte, parse parser) ([]byte, error) {
	if p := d.proto[tag]; p != nil {
		return p, nil
	}
	d.restLater()
	p, err := binary(packed, parse)
	if err != nil {
		return nil, err
	}
	d.proto[tag] = p
	return p, nil
}

// restLater has what was allocated for building given back once nobody has asked for a while. d.mu is held.
func (d *Documents) restLater() {
	if d.rest == nil {
		d.rest = time.AfterFunc(idle, d.release)
		return
	}
	d.rest.Reset(idle)
}

// release gives back what was allocated for building: it is garbage now, and more than the rest of the hub needs.
func (d *Documents) release() {
	d.mu.Lock()
	d.defs = nil
	d.mu.Unlock()
	debug.FreeOSMemory()
}

// root returns the path below which a group-version is served.
func root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

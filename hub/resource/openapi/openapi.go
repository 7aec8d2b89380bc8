// Package openapi describes the served kinds in OpenAPI, version 2 and 3: what kubectl explain shows, what clients
// validate by, and the merge keys of strategic merge patches.
//
// Upstream's generated definitions cover every kind that Kubernetes has and come to tens of megabytes. So nothing is built
// until a client asks; then all documents are built in one go, and only their compressed JSON is kept, a few hundred
// kilobytes. When the kinds change they are built again at the next request.
package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// Documents holds the documents of the served kinds. It is safe for concurrent use.
type Documents struct {
	kinds *resource.Kinds

	mu    sync.Mutex
	of    uint64 // the generation of kinds that the documents describe; guarded by mu, as all that follows
	v2    []byte // gzip'd JSON; nil: not built
	v2tag string
	v3    map[schema.GroupVersion][]byte // gzip'd JSON
	tags  map[schema.GroupVersion]string
	proto map[string][]byte // by etag; made when a client requests it, which few do
}

// New returns the documents of kinds. Nothing is built yet.
func New(kinds *resource.Kinds) *Documents { return &Documents{kinds: kinds} }

// GroupVersions lists the documents of version 3: path below /openapi/v3 and content hash.
func (d *Documents) GroupVersions() (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.build(); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(d.tags))
	for gv, tag := range d.tags {
		out[root(gv)[1:]] = tag
	}
	return out, nil
}

// V3 returns the document of a group-version, gzip'd, with its hash; ok is false when it has no kinds.
func (d *Documents) V3(gv schema.GroupVersion, protobuf bool) (doc []byte, etag string, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.build(); err != nil {
		return nil, "", false, err
	}
	doc, ok = d.v3[gv]
	if ok && protobuf {
		doc, err = d.protobuf(d.tags[gv], doc, func(json []byte) (proto.Message, error) { return openapiv3.ParseDocument(json) })
	}
	return doc, d.tags[gv], ok, err
}

// V2 returns the one document of version 2, gzip'd, with its hash.
func (d *Documents) V2(protobuf bool) (doc []byte, etag string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.build(); err != nil {
		return nil, "", err
	}
	doc = d.v2
	if protobuf {
		doc, err = d.protobuf(d.v2tag, doc, func(json []byte) (proto.Message, error) { return openapiv2.ParseDocument(json) })
	}
	return doc, d.v2tag, err
}

// build makes the documents when they are missing or of other kinds. d.mu is held.
func (d *Documents) build() error {
	generation := d.kinds.Generation()
	if d.v2 != nil && d.of == generation {
		return nil
	}
	b := newBuilder(d.kinds.All())
	v3, tags := map[schema.GroupVersion][]byte{}, map[schema.GroupVersion]string{}
	for gv := range b.kinds {
		doc, err := b.v3(gv)
		if err != nil {
			return fmt.Errorf("openapi v3 of %s: %w", gv, err)
		}
		if v3[gv], tags[gv], err = pack(doc); err != nil {
			return fmt.Errorf("openapi v3 of %s: %w", gv, err)
		}
	}
	doc, err := b.v2()
	if err != nil {
		return fmt.Errorf("openapi v2: %w", err)
	}
	v2, v2tag, err := pack(doc)
	if err != nil {
		return fmt.Errorf("openapi v2: %w", err)
	}
	d.of, d.v2, d.v2tag, d.v3, d.tags, d.proto = generation, v2, v2tag, v3, tags, map[string][]byte{}
	// What was allocated for building is garbage now, and more than the rest of the hub needs: return it to the system.
	debug.FreeOSMemory()
	return nil
}

func (d *Documents) protobuf(tag string, packed []byte, parse func([]byte) (proto.Message, error)) ([]byte, error) {
	if p := d.proto[tag]; p != nil {
		return p, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	doc, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	m, err := parse(doc)
	if err != nil {
		return nil, fmt.Errorf("openapi as protobuf: %w", err)
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("openapi as protobuf: %w", err)
	}
	p, err := compress(raw)
	if err != nil {
		return nil, fmt.Errorf("openapi as protobuf: %w", err)
	}
	d.proto[tag] = p
	debug.FreeOSMemory()
	return p, nil
}

func pack(doc any) (packed []byte, tag string, err error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, "", err
	}
	sum := sha512.Sum512(raw)
	packed, err = compress(raw)
	return packed, fmt.Sprintf("%X", sum[:32]), err
}

func compress(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(b.Bytes()), nil
}

// root returns the path below which a group-version is served.
func root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

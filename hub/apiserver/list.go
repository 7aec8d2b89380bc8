package apiserver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/registry"
)

func (x *exchange) list() {
	out, err := x.negotiate()
	if err != nil {
		x.fail(err)
		return
	}
	opts, err := x.listOptions()
	if err != nil {
		x.fail(err)
		return
	}
	res, done, err := x.readList(out, opts)
	if err != nil {
		x.fail(err)
		return
	}
	defer done()
	x.writeList(out, res)
}

// readList reads a list. done must be called once it has been written.
func (x *exchange) readList(out media.Form, opts *metav1.ListOptions) (res *registry.ListResult, done func(), err error) {
	read := func() (*registry.ListResult, error) { return x.s.Verbs.List(x.ctx, x.t, opts) }
	if !streamed(out) {
		return x.s.budgets.lists.Read(x.ctx, x.user.Name, read)
	}
	res, err = read()
	return res, func() {}, err
}

// streamed reports whether a list in a form is written item by item.
func streamed(out media.Form) bool { return out.Media == media.JSON && !out.Pretty && out.As == "" }

// writeList answers with a list. The common case streams the stored bytes; every other form is built first.
func (x *exchange) writeList(out media.Form, res *registry.ListResult) {
	gvk := x.t.Kind.GVK
	kind, apiVersion := x.t.Kind.ListKind(), gvk.GroupVersion().String()
	items := res.Items
	switch out.As {
	case "Table":
		t, err := x.table(out, items, nil, listMeta(res))
		if err != nil {
			x.fail(err)
			return
		}
		x.writeJSONAs(out, t)
		return
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		kind, apiVersion = "PartialObjectMetadataList", out.Shape
		items = make([]json.RawMessage, len(res.Items))
		for i, item := range res.Items {
			var err error
			if items[i], err = partial(item, out.Shape); err != nil {
				x.fail(err)
				return
			}
		}
	}
	head, err := listHead(kind, apiVersion, listMeta(res))
	if err != nil {
		x.fail(err)
		return
	}
	if x.audit.WantsResponse() {
		x.audit.Response(joinList(head, items))
	}
	if out.Binary() {
		body, err := x.s.codec.BinaryList(out, kind, apiVersion, listMeta(res), items)
		if err != nil {
			x.fail(err)
			return
		}
		x.writeBytes(http.StatusOK, out.Media, body)
		return
	}
	if out.Media == media.JSON && (!out.Pretty || listSize(head, items) > maxYAMLOut) { // what nobody reads need not be indented
		x.streamList(head, items)
		return
	}
	x.writeBody(http.StatusOK, out, joinList(head, items))
}

// writeJSONAs answers with v in a text form that has been negotiated.
func (x *exchange) writeJSONAs(out media.Form, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		x.fail(fmt.Errorf("encode the answer: %w", err))
		return
	}
	x.writeBody(http.StatusOK, out, body)
}

func listMeta(res *registry.ListResult) metav1.ListMeta {
	return metav1.ListMeta{ResourceVersion: res.ResourceVersion, Continue: res.Continue, RemainingItemCount: res.Remaining}
}

// listHead returns the JSON before the first item.
func listHead(kind, apiVersion string, m metav1.ListMeta) ([]byte, error) {
	meta, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode list metadata: %w", err)
	}
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind, apiVersion, meta), nil
}

const listTail = "]}\n"

// listSize returns the length of the list's JSON in bytes.
func listSize(head []byte, items []json.RawMessage) int {
	n := len(head) + len(listTail) + max(0, len(items)-1)
	for _, item := range items {
		n += len(item)
	}
	return n
}

// joinList returns the list's JSON in one piece.
func joinList(head []byte, items []json.RawMessage) []byte {
	b := append(make([]byte, 0, listSize(head, items)), head...)
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, item...)
	}
	return append(b, listTail...)
}

// buffers join small items into writes that are large enough for a TLS record or an HTTP/2 frame.
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// streamList writes the list item by item: a large one is never in memory twice.
func (x *exchange) streamList(head []byte, items []json.RawMessage) {
	h := x.w.Header()
	h.Set("Content-Type", media.JSON)
	size := listSize(head, items)
	var w io.Writer = x.w
	if size >= gzipFrom && x.compresses() {
		z := x.startGzip(http.StatusOK)
		defer func() {
			if err := z.Close(); err != nil {
				x.s.Log.Debug("list not delivered", "path", x.r.URL.Path, "error", err)
			}
			putGzip(z)
		}()
		w = z
	} else {
		h.Set("Content-Length", strconv.Itoa(size))
		x.w.WriteHeader(http.StatusOK)
	}
	b := buffers.Get().(*bufio.Writer)
	b.Reset(w)
	defer func() {
		b.Reset(nil)
		buffers.Put(b)
	}()
	// A bufio.Writer keeps its first error, and Flush returns it.
	_, _ = b.Write(head)
	for i, item := range items {
		if i > 0 {
			_ = b.WriteByte(',')
		}
		_, _ = b.Write(item)
	}
	_, _ = b.WriteString(listTail)
	if err := b.Flush(); err != nil {
		x.s.Log.Debug("list not delivered", "path", x.r.URL.Path, "error", err)
	}
}

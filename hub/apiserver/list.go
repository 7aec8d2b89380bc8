package apiserver

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/apiserver/spill"
	"petrel.dev/petrel/hub/apiserver/table"
	"petrel.dev/petrel/hub/audit"
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
	if x.stored(out) {
		res, err = read()
		return res, func() {}, err
	}
	return x.s.budgets.lists.Read(x.ctx, x.user.Name, read)
}

// stored reports whether a list in a form consists of the stored bytes: nothing of it is decoded, though it may have to be decrypted.
func (x *exchange) stored(out media.Form) bool {
	return out.Media == media.JSON && out.As == "" && x.t.Kind.AsStored()
}

// writeList answers with a list. The common case streams the stored bytes; every other form is made item by item while it is written.
func (x *exchange) writeList(out media.Form, res *registry.ListResult) {
	l := &media.List{
		Kind: x.t.Kind.ListKind(), APIVersion: x.t.Kind.GVK.GroupVersion().String(),
		Meta: listMeta(res), Count: len(res.Items),
	}
	// What is decoded later than the request's time has its own deadlines; a client that has gone ends it by the next write.
	portions := res.Portions(context.WithoutCancel(x.ctx))
	l.Items = media.ItemsOf(portions)
	if out.As == "PartialObjectMetadata" || out.As == "PartialObjectMetadataList" {
		l.Kind, l.APIVersion = "PartialObjectMetadataList", out.Shape
		l.Items = table.MetadataOf(l.Items, out.Shape)
	}
	head, err := media.ListHead(l.Kind, l.APIVersion, l.Meta)
	if out.As == "Table" {
		head, l.Items, err = x.tables(out).List(x.ctx, portions, l.Meta)
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.auditList(head, l.Items)
	switch {
	case x.stored(out) && !out.Pretty && res.Show == nil:
		x.streamList(head, res.Items)
	case out.Binary():
		x.writeItems(out, func(w io.Writer) error { return x.s.codec.WriteBinary(w, out, l) })
	case out.Media == media.JSON && out.Pretty:
		x.writeItems(out, func(w io.Writer) error { return media.WriteIndented(w, head, l.Items) })
	default:
		x.writeItems(out, func(w io.Writer) error { return media.WriteJSON(w, head, l.Items) })
	}
}

// auditList notes a list for the audit log, where it wants answers. Of one that is too long for it only the beginning is made.
func (x *exchange) auditList(head []byte, items media.Items) {
	if !x.audit.WantsResponse() {
		return
	}
	w := spill.Writer{Limit: audit.MaxText, Over: func() io.Writer { return tooLong{} }}
	err := media.WriteJSON(&w, head, items)
	if text, ok := w.Held(); ok && err == nil {
		x.audit.Response(text)
		return
	}
	x.audit.LongResponse()
}

// tooLong takes nothing.
type tooLong struct{}

func (tooLong) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// writeItems answers with a list that write makes, whose size is not known before. Small ones, and errors that come early, are answered
// as any other.
func (x *exchange) writeItems(out media.Form, write func(io.Writer) error) {
	contentType, limit := out.Media, gzipFrom
	if out.Media == media.YAML { // what is long stays JSON
		contentType, limit = media.JSON, maxYAMLOut
	}
	var z *gzip.Writer
	var b *bufio.Writer
	w := spill.Writer{Limit: limit, Over: func() io.Writer {
		b = buffers.Get().(*bufio.Writer)
		b.Reset(x.w)
		x.w.Header().Set("Content-Type", contentType)
		if x.compresses() {
			z = x.startGzip(http.StatusOK)
			b.Reset(z)
		} else {
			x.w.WriteHeader(http.StatusOK)
		}
		return b
	}}
	err := write(&w)
	if body, ok := w.Held(); ok {
		switch {
		case err != nil:
			x.fail(err)
		case out.Media == media.YAML:
			x.writeBody(http.StatusOK, out, body)
		default:
			x.writeBytes(http.StatusOK, contentType, body)
		}
		return
	}
	defer putBuffer(b)
	gone := b.Flush() // of all writes: a bufio.Writer keeps its first error
	if gone == nil && err != nil {
		x.s.Log.Error("list cannot be encoded", "path", x.r.URL.Path, "error", err)
		panic(http.ErrAbortHandler) // without its end the client could take it for a whole answer
	}
	if z != nil {
		defer putGzip(z)
		gone = cmp.Or(gone, z.Close())
	}
	if gone != nil {
		x.s.Log.Debug("list not delivered", "path", x.r.URL.Path, "error", gone)
	}
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

// listSize returns the length of the list's JSON in bytes.
func listSize(head []byte, items []json.RawMessage) int {
	n := len(head) + len(media.ListTail) + max(0, len(items)-1)
	for _, item := range items {
		n += len(item)
	}
	return n
}

// buffers join small items into writes that are large enough for a TLS record or an HTTP/2 frame.
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// putBuffer returns a writer for reuse, without its reference to the answer.
func putBuffer(b *bufio.Writer) {
	b.Reset(nil)
	buffers.Put(b)
}

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
	defer putBuffer(b)
	// A bufio.Writer keeps its first error, and Flush returns it.
	_, _ = b.Write(head)
	for i, item := range items {
		if i > 0 {
			_ = b.WriteByte(',')
		}
		_, _ = b.Write(item)
	}
	_, _ = b.WriteString(media.ListTail)
	if err := b.Flush(); err != nil {
		x.s.Log.Debug("list not delivered", "path", x.r.URL.Path, "error", err)
	}
}

package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"petrel.dev/petrel/hub/apiserver/media"
)

// gzipFrom is the size from which an answer is compressed: below, the time costs more than the bytes.
const gzipFrom = 128 << 10

// writeJSON answers with v, outside of negotiation.
func (x *exchange) writeJSON(code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		x.fail(fmt.Errorf("encode the answer: %w", err))
		return
	}
	x.writeBody(code, media.Form{Media: media.JSON, Pretty: media.WantsPretty(x.r, x.query.Get("pretty"))}, body)
}

// writeBody answers with JSON bytes in the wanted form, and with JSON when they have none.
func (x *exchange) writeBody(code int, out media.Form, body []byte) {
	x.audit.Response(body)
	contentType := media.JSON
	switch {
	case out.Binary():
		if b, err := x.s.codec.Binary(out, nil, body); err == nil {
			body, contentType = b, out.Media
		}
	case out.Media == media.YAML:
		if y, ok := x.toYAML(body); ok {
			body, contentType = y, media.YAML
		}
	case out.Pretty:
		var b bytes.Buffer
		if json.Indent(&b, body, "", "  ") == nil {
			body = b.Bytes()
		}
	}
	x.writeBytes(code, contentType, body)
}

// writeBytes answers with body as it is, compressed when that pays.
func (x *exchange) writeBytes(code int, contentType string, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	if len(body) < gzipFrom || !x.compresses() {
		h.Set("Content-Length", strconv.Itoa(len(body)))
		x.w.WriteHeader(code)
		x.write(x.w, body)
		return
	}
	z := x.startGzip(code)
	defer putGzip(z)
	x.write(z, body)
	if err := z.Close(); err != nil {
		x.s.Log.Debug("answer not delivered", "path", x.r.URL.Path, "error", err)
	}
}

// write writes the body. When the client has gone, only the log can report it.
func (x *exchange) write(w io.Writer, body []byte) {
	if _, err := w.Write(body); err != nil {
		x.s.Log.Debug("answer not delivered", "path", x.r.URL.Path, "error", err)
	}
}

// compresses reports whether a large answer should be compressed: the client accepts it, and it is not on this machine,
// where compression costs both sides and saves nothing.
func (x *exchange) compresses() bool {
	if !x.acceptsGzip() {
		return false
	}
	host, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		return true
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback()
}

// acceptsGzip reports whether the client accepts gzip; only q=0 refuses it, other weights do not matter.
func (x *exchange) acceptsGzip() bool {
	for _, h := range x.r.Header.Values("Accept-Encoding") {
		for e := range strings.SplitSeq(h, ",") {
			name, q, _ := strings.Cut(strings.TrimSpace(e), ";")
			if strings.TrimSpace(name) == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

var gzips = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic("apiserver: BestSpeed is a level: " + err.Error())
	}
	return z
}}

// startGzip writes the header of a compressed answer, and returns the writer of its body. The caller closes it, then calls putGzip.
func (x *exchange) startGzip(code int) *gzip.Writer {
	h := x.w.Header()
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	h.Del("Content-Length")
	x.w.WriteHeader(code)
	z := gzips.Get().(*gzip.Writer)
	z.Reset(x.w)
	return z
}

// putGzip returns a writer for reuse, without its reference to the answer.
func putGzip(z *gzip.Writer) {
	z.Reset(nil)
	gzips.Put(z)
}

// writeBinary answers in a binary form with the object whose JSON is body; obj is nil when it has to be decoded.
func (x *exchange) writeBinary(code int, out media.Form, obj runtime.Object, body []byte) {
	x.audit.Response(body)
	b, err := x.s.codec.Binary(out, obj, body)
	if err != nil {
		x.fail(err)
		return
	}
	x.writeBytes(code, out.Media, b)
}

// warn adds a Warning header, once for each text.
func (x *exchange) warn(text string) {
	h, err := utilnet.NewWarningHeader(299, "-", text)
	if err != nil {
		return // control characters: nothing that a header could carry
	}
	const maxWarnings, maxLength = 64, 4096
	x.warning.Lock()
	defer x.warning.Unlock()
	have := x.w.Header()["Warning"]
	if len(have) >= maxWarnings || len(h) > maxLength {
		return
	}
	for _, w := range have {
		if w == h {
			return
		}
	}
	x.w.Header().Add("Warning", h)
}

// AddWarning implements warning.Recorder, for admission. Any goroutine may call it, before the answer begins.
func (x *exchange) AddWarning(_, text string) { x.warn(text) }

// writeCompressed answers with bytes that are gzip'd already, unpacked for a client that cannot read them so.
func (x *exchange) writeCompressed(contentType string, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	if x.acceptsGzip() {
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.Itoa(len(body)))
		x.w.WriteHeader(http.StatusOK)
		x.write(x.w, body)
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		x.fail(fmt.Errorf("unpack the answer: %w", err))
		return
	}
	x.w.WriteHeader(http.StatusOK)
	if _, err := io.Copy(x.w, z); err != nil {
		x.s.Log.Debug("answer not delivered", "path", x.r.URL.Path, "error", err)
	}
}

package apiserver

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"
)

// response records what was answered, for the log, the metrics and the panic handler. It is owned by the request's goroutine.
type response struct {
	http.ResponseWriter
	code     int            // 0: nothing has been answered
	written  int64          // bytes of the body
	hijacked bool           // the connection is another's
	long     bool           // a watch or stream
	patience time.Duration  // how long one piece may take to be read
	armed    time.Time      // when the write deadline was set; zero: none is set
	onHeader func(code int) // called when the answer begins; nil: not
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(code int) {
	w.begin(code)
	w.ResponseWriter.WriteHeader(code)
}

// begin notes the code of the answer. The first one counts.
func (w *response) begin(code int) {
	if w.code != 0 {
		return
	}
	w.code = code
	if w.onHeader != nil {
		w.onHeader(code)
	}
}

// writePiece is what one write may hold, in bytes: each piece has to be taken by the client within the patience, so a
// client that reads slowly is served, and one that does not read at all is cut off.
const (
	writePiece = 16 << 10
	// rearm is the part of the patience after which a new deadline is set: setting one costs HTTP/2 a message.
	rearm = 6
)

// Write implements http.ResponseWriter. It writes in pieces, each with its own deadline.
func (w *response) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	done := 0
	for {
		w.arm()
		n, err := w.ResponseWriter.Write(b[done:min(len(b), done+writePiece)])
		done += n
		w.written += int64(n)
		if err != nil || done == len(b) {
			if err == nil {
				w.disarm()
			}
			return done, err
		}
	}
}

// disarm takes the write deadline away, for a watch or stream that has nothing to send: HTTP/2 ends a stream when its deadline passes,
// whether something is being written or not.
func (w *response) disarm() {
	if w.long && !w.armed.IsZero() && !w.hijacked {
		w.armed = time.Time{}
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Time{})
	}
}

// arm sets the write deadline to patience from now.
func (w *response) arm() {
	now := time.Now()
	if w.hijacked || !w.armed.IsZero() && now.Sub(w.armed) < w.patience/rearm {
		return
	}
	w.armed = now
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(now.Add(w.patience)) // only a test's has none
}

// FlushError sends what has been written.
func (w *response) FlushError() error {
	w.arm()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.disarm()
	}
	return err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker. From then on this response neither writes nor sets deadlines.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("the connection cannot be taken over: streams need HTTP/1.1")
	}
	c, rw, err := h.Hijack()
	if err == nil {
		w.hijacked = true
		w.begin(http.StatusSwitchingProtocols)
	}
	return c, rw, err
}

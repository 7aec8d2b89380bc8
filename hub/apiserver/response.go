package apiserver

import (
	"bufio"
	"errors"
	"net"
	"net/http"
)

// response remembers what was answered, for the log, the metrics and the panic handler.
type response struct {
	http.ResponseWriter
	code     int
	written  int64
	hijacked bool
}

func (w *response) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

func (w *response) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("the connection cannot be taken over: streams need HTTP/1.1")
	}
	c, rw, err := h.Hijack()
	if err == nil {
		w.hijacked = true
		w.code = http.StatusSwitchingProtocols
	}
	return c, rw, err
}
